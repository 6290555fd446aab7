"""HTTP for whoever operates a service, on an address of its own: how it is, its figures, its pages."""

import asyncio
import http
import logging
from collections.abc import Awaitable, Callable, Mapping
from importlib import metadata
from typing import NamedTuple, TypeVar

import structlog
from prometheus_client import CollectorRegistry, Info, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST as EXPOSITION
from prometheus_client.exposition import generate_latest as exposition
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from runwire.service.arrivals import Arrivals, Listener, bound, listen
from runwire.service.responses import method_of, not_allowed, response, text
from runwire.service.settings import BootError, ServiceSettings, host_of, is_loopback

PATIENCE = 5.0
"""Seconds that one who connects has to ask for something."""
FRESH = 1.0
"""Seconds for which figures are given out again: many who ask cost no more than one."""

OPEN = "application/openmetrics-text"

DURATION = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Bounds by which runs and sockets are sorted, in seconds: by how long they took."""

Page = Callable[[Request, str], Awaitable[Response]]
"""Answers a request that comes from a host."""
T = TypeVar("T")

SILENT = logging.getLogger("runwire.operations")
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False  # what strangers send is not worth a line


class Desk(NamedTuple):
    """An address for operators."""

    setting: str
    address: str
    is_named: bool
    """Whether somebody chose it. What nobody chose may be another one, if it is taken."""


def registry(service: str) -> CollectorRegistry:
    """Return a registry that has what all processes have, and the release of a service."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # when something was first counted is of no use, and doubles what is told
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    Info(f"runwire_{service}", f"The {service}.", registry=made).info({"version": metadata.version("runwire")})
    return made


def desk_of(settings: ServiceSettings, field: str) -> Desk:
    """Return the address that a setting has."""
    return Desk(f"{settings.prefix}{field.upper()}", getattr(settings, field), settings.is_named(field))


class Operations:
    """Answers requests by their paths."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._arrivals = Arrivals(())
        self._servers = list[Server]()

    async def begin(self, desk: Desk) -> str:
        """Listen, and return where. Raises BootError."""
        listeners = seated(desk, self._listen)
        for listener in listeners:
            server = await serve(
                _none,
                sock=listener,
                process_request=self._answer,
                server_header=None,
                compression=None,
                open_timeout=PATIENCE,
                close_timeout=PATIENCE,
                max_size=None,
                logger=SILENT,
            )
            self._servers.append(server)
        address = bound(listeners[0])
        if not is_loopback(host_of(address)):
            structlog.get_logger().warning("figures are open to whoever reaches them", address=address)
        return address

    async def close(self) -> None:
        """Answer no more."""
        for server in self._servers:
            server.close()
        await asyncio.gather(*(server.wait_closed() for server in self._servers))

    def _listen(self, address: str) -> list[Listener]:
        return listen(host_of(address), int(address.rpartition(":")[2]), self._arrivals)

    async def _answer(self, connection: ServerConnection, request: Request) -> Response:
        self._arrivals.asked(connection.remote_address)
        if method_of(request) != "GET":
            return not_allowed()
        page = self._pages.get(request.path.partition("?")[0])
        host = str(connection.remote_address[0]) if connection.remote_address else ""
        return await page(request, host) if page else text(http.HTTPStatus.NOT_FOUND, "There is nothing here.")


class Figures:
    """What is counted and measured, as Prometheus reads it: in one of the two formats that there are."""

    def __init__(self, registry: CollectorRegistry, refresh: Callable[[], Awaitable[None]] | None = None) -> None:
        self._registry = registry
        self._refresh = refresh
        self._lock = asyncio.Lock()
        self._at = -FRESH
        self._written = dict[bool, bytes]()

    async def page(self, request: Request, _: str) -> Response:
        """Answer with all of it, as it was a moment ago."""
        is_open = any(OPEN in each for each in request.headers.get_all("Accept"))
        write, content_type = (openmetrics, OPENMETRICS) if is_open else (exposition, EXPOSITION)
        async with self._lock:
            if asyncio.get_running_loop().time() - self._at >= FRESH:
                if self._refresh:
                    await self._refresh()
                self._at = asyncio.get_running_loop().time()
                self._written.clear()
            if is_open not in self._written:
                self._written[is_open] = write(self._registry)
        return response(http.HTTPStatus.OK, content_type, self._written[is_open])


def seated(desk: Desk, listen: Callable[[str], T]) -> T:
    """Listen at an address, or at another of its host's if it is taken and nobody chose it. Raises BootError."""
    try:
        return listen(desk.address)
    except (OSError, RuntimeError) as error:
        if desk.is_named:
            sentence = f"{desk.setting}={desk.address}: it is taken, or no address of this machine"
            raise BootError(sentence) from error
    return listen(f"{desk.address.rpartition(':')[0]}:0")


async def healthy(*_: object) -> Response:
    """Say that the service lives."""
    return text(http.HTTPStatus.OK, "ok")


def ready(is_ready: Callable[[], bool], why_not: str) -> Page:
    """Make the page that says whether it takes work."""

    async def page(*_: object) -> Response:
        return text(http.HTTPStatus.OK, "ready") if is_ready() else text(http.HTTPStatus.SERVICE_UNAVAILABLE, why_not)

    return page


async def _none(_: ServerConnection) -> None:
    """Serve no socket: every request is answered before it could be one."""
