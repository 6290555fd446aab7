"""A module whose import never ends."""

import threading

from engine_service import Agent, RunContext

threading.Event().wait()


class Never(Agent):
    """Never comes to be."""

    async def run(self, context: RunContext, input: str) -> str:
        return ""
