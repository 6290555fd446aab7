"""Well-behaved agents."""

import asyncio
import os
import time

from engine_service import Agent, AgentError, RunContext


class Echo(Agent):
    """Says what it was asked, a number of times."""

    async def run(self, context: RunContext, input: str) -> str:
        for _ in range(int(context.parameters.get("times", 1))):
            await context.say(input)
        return input


class Counter(Agent):
    """Counts, and says with every number which run it is. Halfway it waits for a file, if one is named."""

    async def run(self, context: RunContext, input: str) -> str:
        times, halfway = int(context.parameters.get("times", 1)), context.parameters.get("halfway")
        for number in range(times):
            while halfway and number == times // 2 and not os.path.exists(halfway):
                await asyncio.sleep(0.02)
            await context.say(f"{context.run_id} {number}")
            await asyncio.sleep(context.parameters.get("pause", 0))
        return input


class Waiter(Agent):
    """Says that it waits, and waits until it is told to stop."""

    async def run(self, context: RunContext, input: str) -> str:
        await context.say("waiting")
        await asyncio.Event().wait()
        return ""


class Ticker(Agent):
    """Says something 20 times a second."""

    async def run(self, context: RunContext, input: str) -> str:
        for tick in range(int(context.parameters.get("ticks", 60))):
            await context.say(str(tick))
            await asyncio.sleep(0.05)
        return "done"


class Busy(Agent):
    """Computes for two seconds without awaiting anything."""

    async def run(self, context: RunContext, input: str) -> str:
        await context.say("busy")
        until = time.monotonic() + 2
        while time.monotonic() < until:
            pass
        return "done"


class Flood(Agent):
    """Says which process it is, and a million things, as fast as it is let."""

    async def run(self, context: RunContext, input: str) -> str:
        await context.say(str(os.getpid()))
        for number in range(int(context.parameters.get("events", 1_000_000))):
            await context.say(f"{number} of a million")
        return "done"


class Parent(Agent):
    """Delegates to the agent that it is told, once or until there is an answer."""

    async def run(self, context: RunContext, input: str) -> str:
        for child in input.split(","):
            name, _, order = child.partition(":")
            try:
                return await context.delegate(name, order)
            except (AgentError, LookupError) as error:
                await context.say(str(error))
        return "nobody could"
