"""`asyncio.wait_for` as it is since Python 3.12.

Before that, it loses a cancellation that comes at the moment when what it waits for is done: libraries that read a
model's answer with it would go on as if nobody had left.
"""

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


def mend() -> None:
    """Let all that is imported from now on have the newer one."""
    if sys.version_info < (3, 12):
        asyncio.wait_for = asyncio.tasks.wait_for = wait_for  # type: ignore[assignment]


async def wait_for(fut: Awaitable[T], timeout: float | None) -> T:  # noqa: ASYNC109 - it is the one of asyncio
    """Wait for something, but not for longer."""
    if timeout is None or timeout > 0:
        async with asyncio.timeout(timeout):
            return await fut
    task = asyncio.ensure_future(fut)
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
    if task.cancelled():
        raise TimeoutError
    return task.result()
