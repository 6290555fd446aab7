"""The composition root: reads downwards as the boot, upwards as the shutdown."""

import asyncio
import functools
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack

import structlog
from websockets.asyncio.server import Server
from websockets.asyncio.server import serve as serve_sockets
from websockets.typing import Subprotocol
from websockets.version import version

from edge_gateway import cors
from edge_gateway.bridge import Bridge, Follow, Untold, close
from edge_gateway.close_codes import RESTARTING, Closing
from edge_gateway.connection import Connection
from edge_gateway.engines import Engines
from edge_gateway.frames import CODECS
from edge_gateway.handshake import Handshakes, subprotocol
from edge_gateway.metrics import Metrics
from edge_gateway.pages import NOT_READY, Console, Pages
from edge_gateway.settings import BootError, Settings
from edge_gateway.tracing import Traces
from edge_gateway.transport import engine_credentials, open_channel, reload_on_hangup, server_context
from runwire.service import kernel
from runwire.service.arrivals import Arrivals, bound, listen, say_less
from runwire.service.operations import Figures, Operations, desk_of, healthy, ready
from runwire.service.rates import Rates
from runwire.service.settings import host_of, is_loopback
from runwire.service.signals import stop_signal
from runwire.service.tracing import Tracing

KNOWN = ("15", "16", "17")
"""Releases of websockets that the tests are run with."""
UNSENT = 128 * 1024
"""Bytes that the kernel holds for a browser that doesn't read. It would hold megabytes; and while it swallows them,
nobody could tell a browser that reads slowly from one that doesn't read."""

RESTART = Closing(RESTARTING, "The gateway is restarting. Come back.")


async def serve(settings: Settings) -> None:
    """Serve until told to stop. Raises BootError when something that is needed is missing."""
    log = structlog.get_logger()
    _check_library()
    stop = stop_signal()
    kernel.configure()
    say_less()
    tls = server_context(settings)
    credentials = engine_credentials(settings)
    proxies = [ipaddress.ip_network(network, strict=False) for network in settings.trusted_proxies]
    async with AsyncExitStack() as stack:
        engines = Engines(settings.engine, functools.partial(open_channel, credentials))
        stack.push_async_callback(engines.close)
        engines.begin()
        reload_on_hangup(settings, tls, engines)
        handshakes = Handshakes(
            origins=settings.origins,
            trusted_proxies=proxies,
            rates=Rates(settings.sockets_per_minute),
            questions=Rates(settings.sockets_per_minute),
            max_connections=settings.max_connections,
            connections=lambda: bridge.sockets,
            is_tls=tls is not None,
            is_loopback=settings.is_loopback,
            development_network=settings.development_network,
        )
        metrics = Metrics()
        follow: Follow = Untold
        if settings.otlp_endpoint:
            tracing = Tracing("gateway", settings.otlp_endpoint)
            stack.push_async_callback(tracing.close)
            follow = Traces(tracing).follow
        bridge = Bridge(
            engines,
            lambda connection: handshakes.development_refusal(connection, connection.request),
            metrics,
            follow,
            open_timeout=settings.open_timeout,
            stall_timeout=settings.stall_timeout,
        )
        arrivals = Arrivals(proxies)
        console = Console(settings.engine[0], settings.trace_page or "", settings.origins)
        pages = Pages(engines, handshakes, arrivals, metrics.refused, console)
        metrics.watch(
            {
                "sockets": ("Sockets that are open.", lambda: bridge.sockets),
                "sockets_limit": ("Sockets that may be open.", lambda: settings.max_connections),
                "engines": ("Engines that were found.", lambda: engines.many),
                "engines_serving": ("Engines that take runs.", lambda: engines.many_serving),
            }
        )
        operations = Operations(
            {
                "/metrics": Figures(metrics.registry).page,
                "/healthz": healthy,
                "/readyz": ready(lambda: engines.are_serving and not stop.is_set(), NOT_READY),
            }
        )
        stack.push_async_callback(operations.close)
        desk = await operations.begin(desk_of(settings, "operations_listen"))
        servers = await _listen(settings, arrivals, bridge, pages, tls)
        kernel.settle_memory()
        await asyncio.sleep(0)  # whoever is here already need not wait for the end of the boot
        log.info(
            "serving",
            address=bound(servers[0].sockets[0]),
            operations=desk,
            engine=settings.engine,
            tls=tls is not None,
        )
        _warn(settings)

        await stop.wait()

        log.info("draining", sockets=bridge.sockets, grace=settings.drain_grace)
        for server in servers:
            server.close(close_connections=False)
        await _drain(servers, settings.drain_grace)
    log.info("stopped")


def _check_library() -> None:
    """Refuse a library that we were not tried with: it would fail later, for somebody's browser."""
    if version.partition(".")[0] not in KNOWN:
        raise BootError(f"websockets {version} is not known to work: install one of {', '.join(KNOWN)}")


def _warn(settings: Settings) -> None:
    """Say what an operator should know, and may not have meant."""
    log = structlog.get_logger()
    if settings.tls_cert is None and not settings.is_loopback:
        log.warning("no TLS on a public address: something in front must provide it", address=settings.listen)
    if settings.origins and not cors.SEES_PREFLIGHTS:
        log.warning("pages from elsewhere cannot list agents and runs: websockets 17 or newer lets them", has=version)
    remote = [address for address in settings.engine if not is_loopback(host_of(address))]
    if remote and settings.engine_ca is None:
        log.warning("tokens go to a remote engine in clear: set RUNWIRE_GATEWAY_ENGINE_CA", engine=remote)


async def _listen(
    settings: Settings, arrivals: Arrivals, bridge: Bridge, pages: Pages, tls: ssl.SSLContext | None
) -> list[Server]:
    """Serve at every address of the host that was named."""
    port = int(settings.listen.rpartition(":")[2])
    try:
        listeners = listen(host_of(settings.listen), port, arrivals)
    except OSError as error:
        raise BootError(f"cannot listen on {settings.listen}: it is taken, or no address of this machine") from error
    servers = list[Server]()
    for listener in listeners:  # those that are accepted inherit what is set here
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        # Pings make sure that there is something to answer; a browser whose machine doesn't for so long is gone.
        gone = settings.ping + settings.stall_timeout
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(gone * 1000))
        server = await serve_sockets(
            bridge.carry,
            sock=listener,
            ssl=tls,
            process_request=pages.answer,
            subprotocols=[Subprotocol(codec.subprotocol) for codec in CODECS],
            select_subprotocol=subprotocol,
            compression=None,  # it would cost each socket memory, and each small frame more time than it saves
            server_header=None,
            open_timeout=settings.open_timeout,
            ping_interval=settings.ping,
            ping_timeout=None,  # a ping waits behind what is sent; whether the browser is there, TCP knows: see above
            max_size=settings.max_frame_bytes,
            create_connection=Connection,
        )
        servers.append(server)
    return servers


async def _drain(servers: Sequence[Server], grace: float) -> None:
    """Give the sockets time to finish, then tell those that are left to come back."""
    closed = asyncio.gather(*(server.wait_closed() for server in servers))
    try:
        async with asyncio.timeout(grace):
            await asyncio.shield(closed)
    except TimeoutError:
        left = [connection for server in servers for connection in server.connections]
        await asyncio.gather(*(close(connection, RESTART) for connection in left))
        await closed
