"""The composition root: reads downwards as the boot, upwards as the shutdown."""

import asyncio
import ipaddress
import os
import signal
import socket
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack

import grpc
import grpc.aio
import structlog
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_sockets
from websockets.typing import Subprotocol

from edge_gateway import kernel
from edge_gateway.bridge import Bridge, close
from edge_gateway.close_codes import RESTARTING, Closing
from edge_gateway.doors import Doors
from edge_gateway.engine import OPTIONS, Engine, Engines
from edge_gateway.frames import CODECS
from edge_gateway.pages import Pages
from edge_gateway.rates import Rates
from edge_gateway.settings import BootError, Settings

UNSENT = 128 * 1024
"""Bytes that the kernel holds for a browser that doesn't read. It would hold megabytes; and while it swallows them,
nobody could tell a browser that reads slowly from one that doesn't read."""

RESTART = Closing(RESTARTING, "The gateway is restarting. Come back.")


async def serve(settings: Settings) -> None:
    """Serve until told to stop. Raises BootError when something that is needed is missing."""
    log = structlog.get_logger()
    stop = _stop_signal()
    kernel.settle()
    tls = _tls(settings)
    credentials = _credentials(settings)
    if tls is None and not settings.is_loopback:
        log.warning("no TLS on a public address: something in front must provide it", address=settings.listen)
    async with AsyncExitStack() as stack:
        engines = Engines([_engine(address, credentials) for address in settings.engine])
        stack.push_async_callback(engines.close)
        _reload_on_hangup(settings, tls, engines)
        bridge = Bridge(engines, open_timeout=settings.open_timeout, stall_timeout=settings.stall_timeout)
        doors = Doors(
            origins=settings.origins,
            trusted_proxies=[ipaddress.ip_network(network, strict=False) for network in settings.trusted_proxies],
            rates=Rates(settings.sockets_per_minute),
            max_connections=settings.max_connections,
            connections=lambda: bridge.sockets,
            is_tls=tls is not None,
            is_loopback=settings.is_loopback,
        )
        pages = Pages(engines, doors, lambda: (bridge.sockets, bridge.carried))
        server = await _listen(settings, bridge, pages, tls)
        log.info("serving", address=_bound(server), engine=settings.engine, tls=tls is not None)

        await stop.wait()

        log.info("draining", sockets=bridge.sockets, grace=settings.drain_grace)
        server.close(close_connections=False)
        await _drain(server, settings.drain_grace)
    log.info("stopped")


def _stop_signal() -> asyncio.Event:
    """Return what the first SIGTERM or SIGINT sets. A second one ends the process at once."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop


def _tls(settings: Settings) -> ssl.SSLContext | None:
    cert, key = settings.tls_cert, settings.tls_key
    if not (cert and key):
        if cert or key:
            raise BootError("TLS_CERT and TLS_KEY go together: set both, or none")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # TLS 1.2 or newer, by Python's own default
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:
        raise BootError(f"the certificate {settings.tls_cert} or its key cannot be used: {error}") from error
    return context


def _credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """Return how we speak to the engine: encrypted when its CA is named, and with a name of our own if there is one."""
    if not settings.engine_ca:
        if settings.engine_cert or settings.engine_key:
            raise BootError("ENGINE_CERT and ENGINE_KEY need ENGINE_CA")
        return None
    if bool(settings.engine_cert) != bool(settings.engine_key):
        raise BootError("ENGINE_CERT and ENGINE_KEY go together: set both, or none")
    try:
        context = ssl.create_default_context(cafile=settings.engine_ca)
        if settings.engine_cert and settings.engine_key:
            context.load_cert_chain(settings.engine_cert, settings.engine_key)
    except OSError as error:
        raise BootError(f"the engine's CA or our certificate for it cannot be used: {error}") from error
    ours = [path.read_bytes() if path else None for path in (settings.engine_key, settings.engine_cert)]
    return grpc.ssl_channel_credentials(settings.engine_ca.read_bytes(), *ours)


def _reload_on_hangup(settings: Settings, tls: ssl.SSLContext | None, engines: Engines) -> None:
    """Read every certificate again on SIGHUP, for the connections that come after."""

    def reload() -> None:
        log = structlog.get_logger()
        try:
            # Looked at first: a pair that doesn't fit would leave the context that serves with half of it.
            _tls(settings)
            credentials = _credentials(settings)
        except BootError as error:
            log.error("certificates not read again", error=str(error))  # noqa: TRY400 - its text says it all
            return
        if tls and settings.tls_cert and settings.tls_key:
            tls.load_cert_chain(settings.tls_cert, settings.tls_key)
        if credentials:
            engines.renew([_engine(address, credentials) for address in settings.engine])
        log.info("certificates read again")

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


def _engine(address: str, credentials: grpc.ChannelCredentials | None) -> Engine:
    if credentials is None:
        channel = grpc.aio.insecure_channel(address, OPTIONS)
    else:
        channel = grpc.aio.secure_channel(address, credentials, OPTIONS)
    return Engine(channel, is_named=not _is_number(address.rpartition(":")[0]))


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


async def _listen(settings: Settings, bridge: Bridge, pages: Pages, tls: ssl.SSLContext | None) -> Server:
    host, _, port = settings.listen.rpartition(":")
    try:
        server = await serve_sockets(
            bridge.carry,
            host.strip("[]"),
            int(port),
            ssl=tls,
            process_request=pages.answer,
            subprotocols=[Subprotocol(codec.subprotocol) for codec in CODECS],
            select_subprotocol=_subprotocol,
            compression=None,  # it would cost each socket memory, and each small frame more time than it saves
            server_header=None,
            open_timeout=settings.open_timeout,
            ping_interval=settings.ping,
            ping_timeout=None,  # a ping waits behind what is sent; whether the browser is there, TCP knows: see below
            max_size=settings.max_frame_bytes,
        )
    except OSError as error:
        raise BootError(f"cannot listen on {settings.listen}: it is taken, or no address of this machine") from error
    for listening in server.sockets:  # those that are accepted inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        # Pings make sure that there is something to answer; a browser whose machine doesn't for so long is gone.
        gone = settings.ping + settings.stall_timeout
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(gone * 1000))
    return server


def _subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Choose the first of the browser's offers that is ours. Where there is none, the default's frames are sent."""
    ours = {codec.subprotocol for codec in CODECS}
    return next((name for name in offered if name in ours), None)


def _bound(server: Server) -> str:
    host, port, *_ = server.sockets[0].getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _drain(server: Server, grace: float) -> None:
    """Give the sockets time to finish, then tell those that are left to come back."""
    try:
        async with asyncio.timeout(grace):
            await server.wait_closed()
    except TimeoutError:
        await asyncio.gather(*(close(connection, RESTART) for connection in server.connections))
        await server.wait_closed()
