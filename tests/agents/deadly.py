"""A module whose forked processes die at once."""

import os
import signal

from engine_service import Agent, RunContext


class Deadly(Agent):
    """Never gets to do anything."""

    async def run(self, context: RunContext, input: str) -> str:
        return ""


os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGKILL))
