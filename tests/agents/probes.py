"""Well-behaved agents."""

import asyncio

from engine_service import Agent, RunContext


class Echo(Agent):
    """Says what it was asked, a number of times."""

    isolation = "task"

    async def run(self, context: RunContext, input: str) -> str:
        for _ in range(int(context.parameters.get("times", 1))):
            await context.say(input)
        return input


class Waiter(Agent):
    """Says that it waits, and waits until it is told to stop."""

    isolation = "task"

    async def run(self, context: RunContext, input: str) -> str:
        await context.say("waiting")
        await asyncio.Event().wait()
        return ""
