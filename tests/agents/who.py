"""An agent that says who it is."""

import grp
import os
import pwd
from pathlib import Path

from engine_service import Agent, RunContext

IMPORTED_BY = pwd.getpwuid(os.getuid()).pw_name


class Who(Agent):
    """Says whose rights it has, and had when its module was imported."""

    async def run(self, context: RunContext, input: str) -> str:
        groups = [grp.getgrgid(group).gr_name for group in os.getgroups() if group != os.getgid()]
        return f"{pwd.getpwuid(os.geteuid()).pw_name} {IMPORTED_BY} {groups} {Path.home()}"
