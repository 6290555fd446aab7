"""What the agents of both frameworks do alike."""

import asyncio
import time
from collections.abc import AsyncIterator


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"7 degrees in {city}"


def parse() -> str:
    """Parse something large, for two seconds."""
    until = time.monotonic() + 2
    while time.monotonic() < until:
        pass
    return "parsed"


async def ticks() -> AsyncIterator[str]:
    """Say something twenty times a second, for three seconds."""
    for number in range(60):
        yield str(number)
        await asyncio.sleep(0.05)
