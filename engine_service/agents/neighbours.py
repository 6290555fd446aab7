"""Agents that show what one run does to others, and what becomes of it. They exist in development alone."""

import asyncio
import ctypes
import os
import signal
import time

from engine_service import Agent, RunContext

BEATS = 400
PACE = 0.05
"""Seconds between two beats."""
BUSY = 2.0
"""Seconds of computing, for which nothing else happens in a process."""
FLOOD = 100_000
A_TOOL = 100
"""Words after which a tool is called."""


class TryCounting(Agent):
    """Counts, evenly: whatever disturbs it is seen in the gaps between its beats."""

    parameters_schema = {
        "type": "object",
        "properties": {
            "beats": {"type": "integer", "minimum": 1, "default": BEATS},
            "pace": {"type": "number", "minimum": 0, "default": PACE, "description": "Seconds between two beats."},
        },
    }

    async def run(self, context: RunContext, input: str) -> str:  # noqa: ARG002 - it does one thing
        """Count."""
        beats = int(context.parameters.get("beats", BEATS))
        pace = float(context.parameters.get("pace", PACE))
        for beat in range(1, beats + 1):
            await context.say(f"{beat} ")
            await asyncio.sleep(pace)
        return f"{beats} beats"


class TryComputing(Agent):
    """Computes for two seconds without awaiting, a few times. In a process of its own, it holds up nobody."""

    parameters_schema = {
        "type": "object",
        "properties": {
            "times": {"type": "integer", "minimum": 1, "default": 3},
            "seconds": {"type": "number", "minimum": 0, "default": BUSY, "description": "Seconds of computing."},
        },
    }

    async def run(self, context: RunContext, input: str) -> str:  # noqa: ARG002 - it does one thing
        """Compute."""
        times = int(context.parameters.get("times", 3))
        for number in range(1, times + 1):
            await context.think(f"Computing, {number} of {times}. ")
            await context.call(compute, seconds=float(context.parameters.get("seconds", BUSY)))
            await context.say(f"Done {number} of {times}. ")
            await asyncio.sleep(0.5)
        return "All of it is computed."


async def compute(seconds: float) -> dict[str, int]:
    """Add numbers, and let nobody else have the process meanwhile."""
    end, added = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        added += 1
    return {"added": added}


class TryCrashing(Agent):
    """Crashes in the middle of a sentence, as a fault in a C library would have it."""

    async def run(self, context: RunContext, input: str) -> str:  # noqa: ARG002 - it does one thing
        """Crash."""
        for word in ("All", "is", "well,", "and", "nothing"):
            await context.say(f"{word} ")
            await asyncio.sleep(0.2)
        return str(ctypes.string_at(0))


class TryFlooding(Agent):
    """Says as much as it can, as fast as it can: 100,000 words, and a tool after each hundred."""

    parameters_schema = {
        "type": "object",
        "properties": {"words": {"type": "integer", "minimum": 1, "default": FLOOD}},
    }

    async def run(self, context: RunContext, input: str) -> str:  # noqa: ARG002 - it does one thing
        """Flood."""
        words = int(context.parameters.get("words", FLOOD))
        for number in range(1, words + 1):
            await context.say(f"{number} ")
            if number % A_TOOL == 0:
                await context.call(count, number=number)
        return f"{words} words"


async def count(number: int) -> dict[str, int]:
    """Say how far it is."""
    return {"words": number}


class TryQuitting(Agent):
    """Asks whether it may end its own process, and does."""

    async def run(self, context: RunContext, input: str) -> str:  # noqa: ARG002 - it does one thing
        """Ask, and quit."""
        await context.say("I am a process of my own. ")
        reply = await context.ask("Shall I end it?")
        if reply.outcome == "accepted":
            os.kill(os.getpid(), signal.SIGKILL)
        return "Then I stay until my work is done, which is now."
