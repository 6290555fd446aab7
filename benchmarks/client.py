"""A client that counts a mark that every event has once, and decodes nothing.

It costs little; over gRPC as much as a bare server, which holds back everybody there alike.
The same for everybody, so that what is measured is the server: a client that parsed each frame would be slower than it.
"""

import asyncio
import base64
import os
import struct
import time

import grpc
import grpc.aio
from runwire.v1.engine_pb2 import RunRequest

WINDOW = 1024 * 1024


class Counter(asyncio.Protocol):
    """One TCP connection: counts events as they come."""

    def __init__(self, mark: bytes) -> None:
        self.transport: asyncio.Transport
        self.expect(mark)
        self._wanted = 0
        self._news = asyncio.Event()
        self._sought: tuple[bytes, ...] = ()
        self._said = bytearray()
        self.seen: dict[bytes, float] = {}
        """When each of the marks that are sought came first."""
        self.lost = False

    def expect(self, mark: bytes) -> None:
        """Count this from now on."""
        self.events = 0
        self._mark, self._tail = mark, b""

    def seek(self, *marks: bytes) -> None:
        """Tell when each of these comes first."""
        self._sought = marks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Count."""
        if self._sought:
            self._said += data
            for mark in self._sought:
                if mark not in self.seen and mark in self._said:
                    self.seen[mark] = time.perf_counter()
        both = self._tail + data
        found = both.count(self._mark)
        self.events += found
        # A mark that is cut in two is seen with the next piece; one that was counted is not kept.
        self._tail = both[-len(self._mark) + 1 :]
        if self.events >= self._wanted:
            self._news.set()

    def connection_lost(self, _: Exception | None) -> None:
        """End."""
        self.lost = True
        self._news.set()

    async def wait_for(self, events: int) -> None:
        """Wait until so many events have come."""
        self._wanted = events
        while self.events < events:
            if self.lost:
                raise ConnectionError(f"lost after {self.events} of {events} events")
            self._news.clear()
            await self._news.wait()

    def send_frame(self, payload: bytes, opcode: int = 1) -> None:
        """Send a WebSocket frame, masked with nothing."""
        size = len(payload)
        head = bytes((0x80 | opcode, 0x80 | size)) if size < 126 else struct.pack("!BBH", 0x80 | opcode, 0xFE, size)
        self.transport.write(head + bytes(4) + payload)

    def close(self) -> None:
        """Leave without a word."""
        self.transport.abort()


async def websocket(port: int, path: str, mark: bytes, subprotocol: str = "") -> Counter:
    """Open a WebSocket."""
    loop = asyncio.get_running_loop()
    _, counter = await loop.create_connection(lambda: Counter(b"\r\n\r\n"), "127.0.0.1", port)
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
        *([f"Sec-WebSocket-Protocol: {subprotocol}"] if subprotocol else []),
    ]
    counter.transport.write("\r\n".join([*lines, "", ""]).encode())
    await counter.wait_for(1)
    counter.expect(mark)
    return counter


async def http(port: int, mark: bytes) -> Counter:
    """Open a connection for one HTTP request whose answer streams."""
    _, counter = await asyncio.get_running_loop().create_connection(lambda: Counter(mark), "127.0.0.1", port)
    return counter


class GrpcCounter:
    """One call of `Run`: counts events as they come."""

    def __init__(self, channel: grpc.aio.Channel, mark: bytes) -> None:
        self._run = channel.unary_stream("/runwire.v1.EngineService/Run", RunRequest.SerializeToString, None)
        self._mark = mark
        self._call: grpc.aio.UnaryStreamCall[RunRequest, bytes] | None = None
        self.events = 0

    def start(self, request: RunRequest) -> None:
        """Begin."""
        self._call = self._run(request, metadata=(("authorization", "Bearer dev:bench"),))

    async def wait_for(self, events: int) -> None:
        """Wait until so many events have come."""
        assert self._call
        while self.events < events:
            message = await self._call.read()
            if message is grpc.aio.EOF:
                raise ConnectionError(f"ended after {self.events} of {events} events")
            self.events += message.count(self._mark)

    def close(self) -> None:
        """Leave."""
        if self._call:
            self._call.cancel()
