"""A module whose exit function never ends."""

import atexit
import threading

from engine_service import Agent, RunContext


class Lingering(Agent):
    """Ends well, but for that."""

    async def run(self, context: RunContext, input: str) -> str:
        return "done"


atexit.register(threading.Event().wait)
