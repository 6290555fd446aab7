"""Who connects by TCP: so many of one address that say nothing, and never so many that no descriptor is left."""

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

from runwire.service.rates import Rates
from runwire.service.settings import Network, holder, parsed_ip

MAX_SILENT = 256
"""Connections of one address that have not asked for anything yet."""
HASTE = 1.0
"""Seconds for which one is spared that has sent something: an honest caller has asked by then."""
SWEEP = 1000
"""Connections that come until those are forgotten that have gone."""
RESERVE = 1 / 16
"""The part of the descriptors that is kept for what isn't a caller."""
TCP_INFO_RECEIVED = slice(128, 136)
"""Where the kernel says how many bytes have come."""
NO_HANDSHAKE = "opening handshake failed"
"""What websockets calls it when what comes is no request: some of its releases, as if it were our error."""
RETRY = "socket.accept() out of system resource"
"""What asyncio calls it when nobody more can be let in; it tries again after a second."""


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
    """A listening socket that tells who comes, and leaves descriptors for what isn't a caller."""

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


def bound(listening: socket.socket) -> str:
    """Return where a socket listens, as HOST:PORT."""
    host, port, *_ = listening.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
