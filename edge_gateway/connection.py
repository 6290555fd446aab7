"""A browser's connection, before and below its frames: how much of it is taken in at once, and how it is let in."""

import asyncio
import errno
import logging
import os
import resource
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog
from websockets.asyncio.server import ServerConnection

from edge_gateway import cors
from runwire.service.rates import Rates
from runwire.service.settings import Network, holder, parsed_ip

PIECE = 1024
"""Bytes that are parsed at once. Where frames are tiny, each of them costs a hundred times what its bytes do."""
MAX_OWED = 256 * 1024
"""Bytes of answers to pings that wait for a browser who reads none of them."""
MAX_SILENT = 256
"""Connections of one address that have not asked for anything yet."""
HASTE = 1.0
"""Seconds for which one is spared that has sent something: an honest browser has asked by then."""
SWEEP = 1000
"""Connections that come until those are forgotten that have gone."""
RESERVE = 1 / 16
"""The part of the descriptors that is kept for what isn't a browser."""
TCP_INFO_RECEIVED = slice(128, 136)
"""Where the kernel says how many bytes have come."""
NO_HANDSHAKE = "opening handshake failed"
"""What websockets calls it when what comes is no request: some of its releases, as if it were our error."""
RETRY = "socket.accept() out of system resource"
"""What asyncio calls it when nobody more can be let in; it tries again after a second."""


GET = b"GET "
PREFLIGHT = cors.PREFLIGHT.encode()[: len(GET)]
ONLY_GET = "Only GET is understood here.\n"
NOT_ALLOWED = (
    "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Type: text/plain; charset=utf-8\r\n"
    f"Content-Length: {len(ONLY_GET)}\r\nConnection: close\r\n\r\n{ONLY_GET}"
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


class Arrivals:
    """Who has come and not asked for anything yet. Of one address there are so many at most."""

    def __init__(self, trusted_proxies: Sequence[Network]) -> None:
        self._trusted_proxies = trusted_proxies
        self._came = 0
        self._silent = dict[str, OrderedDict[int, tuple[socket.socket, float]]]()

    def came(self, accepted: socket.socket, address: tuple[Any, ...]) -> None:
        """Hear of a new connection. If there are too many like it, the oldest of those who say nothing is closed."""
        found = parsed_ip(str(address[0]))
        host, port = holder(found), int(address[1])
        if found is not None and any(found in proxy for proxy in self._trusted_proxies):
            return  # it speaks for many; those whom it names have their rate (see handshake)
        silent = self._silent.setdefault(host, OrderedDict())
        silent[port] = (accepted, time.monotonic())
        if len(silent) > MAX_SILENT:
            self._thin_out(silent)
        self._came += 1
        if self._came % SWEEP == 0:
            self._sweep()

    def asked(self, address: Any) -> None:
        """Hear that a connection has asked for something."""
        if address and (silent := self._silent.get(host := holder(parsed_ip(str(address[0]))))):
            silent.pop(int(address[1]), None)
            if not silent:
                del self._silent[host]

    def _sweep(self) -> None:
        """Forget whoever left without a word, and addresses that nobody has any more."""
        for host, silent in tuple(self._silent.items()):
            _forget_closed(silent)
            if not silent:
                del self._silent[host]

    def _thin_out(self, silent: OrderedDict[int, tuple[socket.socket, float]]) -> None:
        _forget_closed(silent)
        now = time.monotonic()
        for port, (accepted, since) in silent.items() if len(silent) > MAX_SILENT else ():
            if _has_said_nothing(accepted) or now - since > HASTE:
                del silent[port]
                with suppress(OSError):  # it was reset a moment ago
                    accepted.shutdown(socket.SHUT_RDWR)  # asyncio, whose it is, closes it
                break


def _forget_closed(silent: OrderedDict[int, tuple[socket.socket, float]]) -> None:
    for port in [port for port, (accepted, _) in silent.items() if accepted.fileno() < 0]:
        del silent[port]


class Listener(socket.socket):
    """A listening socket that tells who comes, and leaves descriptors for what isn't a browser."""

    arrivals: Arrivals

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        probe = os.dup(self.fileno())  # the lowest number that is free tells how many there are
        os.close(probe)
        if probe >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] * (1 - RESERVE):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        accepted, address = super().accept()
        self.arrivals.came(accepted, address)
        return accepted, address


def listen(host: str, port: int, arrivals: Arrivals) -> list[Listener]:
    """Listen on every address of a host. Raises OSError."""
    listeners = list[Listener]()
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in dict.fromkeys(found):
        # With its protocol named, asyncio sets TCP_NODELAY on whatever is accepted here.
        listener = Listener(family, kind, protocol)
        listener.arrivals = arrivals
        listeners.append(listener)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
        except OSError:
            for each in listeners:
                each.close()
            raise
    return listeners


def say_less() -> None:
    """Log that nobody more is let in once a minute, and not for each attempt; and nothing of who sends no HTTP."""
    loop, rates, log = asyncio.get_running_loop(), Rates(1), structlog.get_logger()
    logging.getLogger("websockets.server").addFilter(lambda record: record.getMessage() != NO_HANDSHAKE)

    def hear(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("message") != RETRY:
            loop.default_exception_handler(context)
        elif not rates.take(RETRY):
            log.warning("there are no descriptors left: nobody is let in until some are free")

    loop.set_exception_handler(hear)


def _has_said_nothing(accepted: socket.socket) -> bool:
    """Ask the kernel whether anything has come, be it read or not."""
    try:
        known = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_RECEIVED.stop)
    except OSError:
        return True
    return len(known) < TCP_INFO_RECEIVED.stop or not struct.unpack("Q", known[TCP_INFO_RECEIVED])[0]
