"""A module that leaves a process running, which inherits what it can."""

import os

from engine_service import Agent, RunContext

os.system("setsid sleep 97 >/dev/null 2>&1 &")


class WithDaemon(Agent):
    """Needs no daemon."""

    async def run(self, context: RunContext, input: str) -> str:
        return "done"
