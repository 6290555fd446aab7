"""Agents that share the engine's process."""

import asyncio

from engine_service import Agent, RunContext


class TaskWaiter(Agent):
    """Says that it waits, and waits until it is told to stop."""

    isolation = "task"

    async def run(self, context: RunContext, input: str) -> str:
        await context.say("waiting")
        await asyncio.Event().wait()
        return ""
