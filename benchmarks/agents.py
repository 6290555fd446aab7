"""The agent that every contestant runs, as Runwire's: in a process of its own, and as a task."""

import asyncio
import time

from engine_service import Agent, RunContext


class Numbers(Agent):
    """Says what it is asked for: many small things, one thing and then nothing, or one and then two seconds of work."""

    async def run(self, context: RunContext, input: str) -> str:
        """Do as asked."""
        if input == "wait":
            await context.say("waiting")
            await asyncio.Event().wait()
        if input == "busy":
            await context.say("busy")
            until = time.monotonic() + 2
            while time.monotonic() < until:
                pass
        if input == "tick":
            for number in range(40):
                await context.say(str(number))
                await asyncio.sleep(0.05)
        for number in range(int(context.parameters.get("times", 0))):
            await context.say(f"{number} of many")
        return "done"


class Numbert(Numbers):
    """The same, as a task. Its name has as many letters as the other's: events are of the same size."""

    isolation = "task"
