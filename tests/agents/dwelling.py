"""An agent that takes memory."""

import asyncio

from engine_service import Agent, RunContext


class Dwelling(Agent):
    """Takes so many megabytes, and keeps them."""

    async def run(self, context: RunContext, input: str) -> str:
        taken = bytearray(b"x") * (int(input) * 1024 * 1024)
        await context.say("taken")
        await asyncio.Event().wait()
        return str(len(taken))
