"""A bad network: a TCP proxy that delays, throttles, stalls, half-closes and resets what goes through it."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Literal

Fault = Literal["reset", "stall", "half-close"]
FAULTS: tuple[Fault, ...] = ("reset", "stall", "half-close")
CHUNK = 16 * 1024
RST = struct.pack("ii", 1, 0)
"""SO_LINGER that makes closing a reset."""


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy: "Proxy", *pairs: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self._proxy = proxy
        self._up_from, self._down_to = pairs[0]
        self._down_from, self._up_to = pairs[1]
        self._stalled = False
        self._ways: list[asyncio.Task[None]] = []
        self.down = 0
        """Bytes that went to the client."""

    async def carry(self) -> None:
        """Carry bytes both ways until either end is gone."""
        self._ways = ways = [
            asyncio.create_task(self._pump(self._up_from, self._up_to, is_down=False)),
            asyncio.create_task(self._pump(self._down_from, self._down_to, is_down=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if self._stalled:  # nothing of what one end does reaches the other
                await asyncio.wait(ways)
        finally:
            for way in ways:
                way.cancel()
            for writer in (self._up_to, self._down_to):
                writer.close()

    def fail(self, fault: Fault) -> None:
        """Break the connection."""
        if fault == "reset":
            for writer in (self._up_to, self._down_to):
                raw: socket.socket = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):  # one that has ended by itself a moment ago is closed already
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
                writer.transport.abort()
            for way in self._ways:  # also one that stalls, and would not see it
                way.cancel()
            return
        self._stalled = True
        if fault == "half-close":
            with contextlib.suppress(OSError):
                self._down_to.write_eof()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_down: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(CHUNK):
                await self._proxy.hold(len(data))
                if self._stalled:
                    continue
                if is_down and (fault := self._proxy.fate(self, data)):
                    target.write(data[: len(data) // 2])  # in the middle of a frame
                    self.fail(fault)
                    continue
                self.down += len(data) * is_down
                target.write(data)
                await target.drain()


class Proxy:
    """Stands in front of a service."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.rpartition(":")
        self.address = ""
        self.links = set[Link]()
        self.is_cut = False
        """Whether new connections are reset at once."""
        self.delay = 0.0
        """Seconds that everything takes longer."""
        self.rate = 0.0
        """Bytes in a second, if there is a limit."""
        self.fate: Callable[[Link, bytes], Fault | None] = lambda _, __: None
        """Decides, for what is to go down a link, whether it fails now, and how."""

    async def hold(self, size: int) -> None:
        """Take as long as the network does."""
        if wait := self.delay + (size / self.rate if self.rate else 0):
            await asyncio.sleep(wait)

    def cut(self, fault: Fault = "reset") -> None:
        """Break every connection there is."""
        for link in tuple(self.links):
            link.fail(fault)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        if self.is_cut:
            writer.transport.abort()
            return
        try:
            there = await asyncio.open_connection(self._host, int(self._port))
        except OSError:
            writer.transport.abort()
            return
        link = Link(self, (reader, writer), there)
        self.links.add(link)
        try:
            await link.carry()
        except asyncio.CancelledError:
            pass  # the test is over; asyncio's streams would complain of a task that was cancelled
        finally:
            self.links.discard(link)


@asynccontextmanager
async def proxy(target: str) -> AsyncGenerator[Proxy]:
    """Stand in front of a service's address."""
    standing = Proxy(target)
    server = await asyncio.start_server(standing.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    standing.address = f"{host}:{port}"
    try:
        yield standing
    finally:
        server.close()
        while standing.links:  # what is behind us sees its end before it is told to stop
            standing.cut()  # whoever came in the meantime, too
            await asyncio.sleep(0.001)
