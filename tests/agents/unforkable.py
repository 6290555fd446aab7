"""Modules that cannot be forked: a process that is hangs before it has begun."""

import os
import threading

from engine_service import Agent, RunContext


class Stuck(Agent):
    """Would hang in every forked process."""

    async def run(self, context: RunContext, input: str) -> str:
        return str(os.getpid())


os.register_at_fork(after_in_child=threading.Event().wait)
