"""One call's stream, on its way out: what happens, heartbeats in between, and an end for a caller who doesn't read."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from engine_service.wire import GRACE, NANOSECONDS, frame

RUN_ID = 0x0A
"""The tag of a stream's run: field 1 of RunResponse. What has events behind it is a RunResponse with them."""
HEARTBEAT = 0x2A
"""The tag of how long a stream is quiet at most: field 5 of RunResponse."""
LAST_WRITE = 2 * GRACE
"""Seconds that a write may take once the run is told to stop."""
WINDOW = 32 * 1024
"""Bytes that gRPC takes at once, whatever its caller does."""
SLOWEST = 4 * 1024
"""Bytes a second that a caller reads at least. gRPC doesn't tell how much of a message has been taken."""

Context = grpc.aio.ServicerContext[Any, Any]
Read = Callable[[], Awaitable[bytes]]


class StalledError(Exception):
    """The caller has taken nothing for too long."""


class Reply:
    """Writes a call's messages. Each may take as long as a caller may stall, and more if it is large."""

    def __init__(
        self, context: Context, run_id: str, *, heartbeat: float, stall: float, about: Sequence[tuple[str, str]]
    ) -> None:
        self._context = context
        self._start = head(run_id)
        self._first = quiet(heartbeat)
        self._heartbeat = heartbeat
        self._stall = stall
        self._about = about
        self._slowest: float = SLOWEST
        self._has_begun = False
        self._largest = 0  # of the messages that may still be under way
        self._writing: asyncio.Timeout | None = None

    async def begin(self) -> None:
        """Say that the call is answered. Raises StalledError.

        A call whose first write is cancelled cannot be ended any more: this one never waits for its caller.
        """
        self._has_begun = True
        await self._bounded(self._context.send_initial_metadata(self._about))

    async def carry(self, read: Read, patience: float | None = None) -> None:
        """Write what is read until there is no more of it, and a heartbeat whenever there was nothing for a while.

        The first one comes after `patience`, if that is given. Raises StalledError.
        """
        while True:
            try:
                async with asyncio.timeout(self._heartbeat if patience is None else patience):
                    events = await read()
            except TimeoutError:
                await self._write(b"")
            else:
                if not events:
                    return
                await self._write(events)
            patience = None

    def hurry(self) -> None:
        """Hear that the run is told to stop: it has a moment to end, and its caller as long to read what is left."""
        self._stall, self._slowest = min(self._stall, LAST_WRITE), math.inf
        if self._writing and (when := self._writing.when()) is not None:
            self._writing.reschedule(min(when, asyncio.get_running_loop().time() + LAST_WRITE))

    async def _write(self, events: bytes) -> None:
        message = self._start + self._first + events
        self._first = b""
        if not self._has_begun and (self._about or len(message) > WINDOW):
            await self.begin()
        self._has_begun = True
        # Before there is room for this one, the one before it has to be taken.
        size, self._largest = max(self._largest, len(message)), len(message)
        await self._bounded(self._context.write(message), size / self._slowest)

    async def _bounded(self, writing: Awaitable[None], more: float = 0) -> None:
        """Wait until something is written: this is the call's flow control."""
        deadline = asyncio.get_running_loop().time() + self._stall + more
        try:
            async with asyncio.timeout_at(deadline) as self._writing:
                await writing
        except TimeoutError:
            raise StalledError from None
        except Exception as error:
            # A write fails when the caller is gone, a moment before gRPC says so by cancelling.
            raise asyncio.CancelledError from error
        finally:
            self._writing = None


def head(run_id: str) -> bytes:
    """Encode what every RunResponse begins with. Alone, it is a heartbeat; with event frames behind it, it has them."""
    return frame(RUN_ID, run_id.encode())


def quiet(seconds: float) -> bytes:
    """Encode for how long a stream is quiet at most: it stands in its first message."""
    heartbeat = Duration()
    heartbeat.FromNanoseconds(int(seconds * NANOSECONDS))
    return frame(HEARTBEAT, heartbeat.SerializeToString())
