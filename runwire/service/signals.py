"""How a service is told to stop."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class StoppedError(Exception):
    """We were told to stop while something else was waited for."""


def stop_signal() -> asyncio.Event:
    """Return what the first SIGTERM or SIGINT sets. A second one ends the process at once."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """Do something, and cancel it when we are told to stop before it is done. Raises StoppedError."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.wait((working, stopping))
    if working.cancelled():
        raise StoppedError
    return working.result()
