"""How fast a browser is sent to: as fast as it reads, and a resumable run no further ahead than the engine keeps."""

import asyncio
from collections import deque
from collections.abc import Awaitable

from websockets.asyncio.server import ServerConnection

SPAN, UNDER_WAY = 32 * 1024, 256 * 1024
"""Bytes of a resumable run until its browser is asked whether they have arrived, and how many may be under way: what is
lost with a connection has to be less than what the engine keeps."""


class StalledError(Exception):
    """A browser has not taken a byte for too long."""


class Pacer:
    """Sends frames to one socket."""

    def __init__(self, socket: ServerConnection, stall_timeout: float, *, is_text: bool, is_lasting: bool) -> None:
        self._socket = socket
        self._stall_timeout = stall_timeout
        self._is_text = is_text
        self._is_lasting = is_lasting
        self._lock = asyncio.Lock()
        self._unasked = 0  # bytes since the last ping
        self._under_way = 0  # bytes before that which may not have arrived
        self._arriving = deque[tuple[int, Awaitable[float]]]()  # so many of them have when the pong comes

    async def send(self, frame: bytes) -> None:
        """Send a frame, and wait until there is room for the next one. Raises StalledError."""
        async with self._lock:  # what becomes of answers is said in between
            await self._send(frame)

    async def _send(self, frame: bytes) -> None:
        left = self._socket.transport.get_write_buffer_size() + len(frame)
        sending = self._socket.send(frame, text=self._is_text)
        while True:
            try:
                async with asyncio.timeout(self._stall_timeout):
                    await sending
                break
            except TimeoutError:  # the frame is in the buffer, whole: only the waiting was cancelled
                now = self._socket.transport.get_write_buffer_size()
                if now >= left:
                    raise StalledError from None
                left, sending = now, self._wait()
        if self._is_lasting:
            await self._pace(len(frame))

    async def _pace(self, size: int) -> None:
        """Wait until all but the newest have arrived: a browser answers a ping when it has read what came before it."""
        self._unasked += size
        if self._unasked < SPAN:
            return
        try:
            async with asyncio.timeout(self._stall_timeout):
                self._arriving.append((self._unasked, await self._socket.ping()))
                self._under_way += self._unasked
                self._unasked = 0
                while self._under_way > UNDER_WAY:
                    arrived, pong = self._arriving.popleft()
                    await pong
                    self._under_way -= arrived
        except TimeoutError:
            raise StalledError from None

    async def _wait(self) -> None:
        """Wait until there is room: a ping waits for it as a frame does."""
        await self._socket.ping()
