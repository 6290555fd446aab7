"""A module that cannot be forked, and says so."""

import os
import threading

from engine_service import Agent, RunContext

HOME = os.getpid()


class Apart(Agent):
    """Runs in a process that was started afresh."""

    fork = False
    isolation = "process"

    async def run(self, context: RunContext, input: str) -> str:
        await context.say(str(os.getpid()))
        return "afresh" if os.getpid() == HOME else "forked"


os.register_at_fork(after_in_child=threading.Event().wait)
