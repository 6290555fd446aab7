"""A browser's connection, before and below its frames: how much of it is taken in at once, and how it is let in."""

from typing import Any

from websockets.asyncio.server import ServerConnection

from edge_gateway import cors
from runwire.service.responses import ONLY_GET

PIECE = 1024
"""Bytes that are parsed at once. Where frames are tiny, each of them costs a hundred times what its bytes do."""
MAX_OWED = 256 * 1024
"""Bytes of answers to pings that wait for a browser who reads none of them."""
GET = b"GET "
PREFLIGHT = cors.PREFLIGHT.encode()[: len(GET)]
NOT_ALLOWED = (
    "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Type: text/plain; charset=utf-8\r\n"
    f"Content-Length: {len(ONLY_GET) + 1}\r\nConnection: close\r\n\r\n{ONLY_GET}\n"
).encode()


class Connection(ServerConnection):
    """A connection that is taken in piece by piece, giving way to others in between."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._method: bytes | None = b""  # what came of it, until all of it has
        self._backlog = bytearray()
        self._is_ending = False
        self._owed = 0

    def data_received(self, data: bytes) -> None:
        """Take in what came; if it is much, the beginning of it, and the rest later."""
        if self._method is not None:
            data = self._method + data
            if len(data) < len(GET):
                self._method = data
                return
            self._method = None
            method = data[: len(GET)]
            passes = method == GET or (method == PREFLIGHT and cors.SEES_PREFLIGHTS)
            if not passes and method.strip().isalpha() and method.isupper():
                # Not every websockets that there is lets such a request through to where pages are served.
                self.transport.write(NOT_ALLOWED)
                self.transport.close()
                return
        if self._backlog:
            self._backlog += data
        elif len(data) > PIECE:
            self._backlog += data
            self._take()
        else:
            self._parse(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Hear that no more comes, after what is still to be taken in."""
        if self._method:
            begun, self._method = self._method, None
            self._parse(begun)
        if self._backlog:
            self._is_ending = True
            return True
        super().eof_received()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go."""
        self._backlog.clear()
        super().connection_lost(exc)

    def _take(self) -> None:
        if not self._backlog:
            return
        piece = bytes(self._backlog[:PIECE])
        del self._backlog[:PIECE]
        self._parse(piece)
        if self._backlog:
            self.transport.pause_reading()
            self.loop.call_soon(self._take)
        elif self._is_ending:
            super().eof_received()
            self.transport.close()
        elif not self.recv_messages.paused:  # or they are waited for, and reading goes on when they have been taken
            self.transport.resume_reading()

    def _parse(self, data: bytes) -> None:
        before = self.transport.get_write_buffer_size()
        super().data_received(data)
        # What browsers send makes us answer pings alone. Whoever pings and never reads would fill our memory.
        answered = self.transport.get_write_buffer_size() - before
        self._owed = self._owed + max(answered, 0) if self.paused else 0
        if self._owed > MAX_OWED:
            self.transport.abort()
