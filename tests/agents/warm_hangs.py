"""An agent whose warm-up never ends."""

import asyncio

from engine_service import Agent, RunContext


class Endless(Agent):
    """Waits."""

    @classmethod
    async def warm_up(cls) -> None:
        """Wait."""
        await asyncio.Event().wait()

    async def run(self, context: RunContext, input: str) -> str:
        """Never."""
        return ""
