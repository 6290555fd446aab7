"""The composition root: reads downwards as the boot, upwards as the shutdown."""

import asyncio
import functools
import ipaddress
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

from edge_gateway.bridge import Bridge, close
from edge_gateway.close_codes import RESTARTING, Closing
from edge_gateway.connection import Arrivals, Connection, listen, say_once_when_full
from edge_gateway.doors import Doors
from edge_gateway.engine import OPTIONS, Engines
from edge_gateway.frames import CODECS
from edge_gateway.pages import Pages
from edge_gateway.settings import BootError, Settings
from runwire.service import kernel
from runwire.service.rates import Rates
from runwire.service.settings import host_of, is_loopback
from runwire.service.signals import stop_signal

UNSENT = 128 * 1024
"""Bytes that the kernel holds for a browser that doesn't read. It would hold megabytes; and while it swallows them,
nobody could tell a browser that reads slowly from one that doesn't read."""

RESTART = Closing(RESTARTING, "The gateway is restarting. Come back.")


async def serve(settings: Settings) -> None:
    """Serve until told to stop. Raises BootError when something that is needed is missing."""
    log = structlog.get_logger()
    stop = stop_signal()
    kernel.configure()
    say_once_when_full()
    tls = _tls(settings)
    credentials = _credentials(settings)
    proxies = [ipaddress.ip_network(network, strict=False) for network in settings.trusted_proxies]
    async with AsyncExitStack() as stack:
        engines = Engines(settings.engine, functools.partial(_channel, credentials))
        stack.push_async_callback(engines.close)
        engines.begin()
        _reload_on_hangup(settings, tls, engines)
        doors = Doors(
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
        bridge = Bridge(
            engines,
            lambda connection: doors.development_refusal(connection, connection.request),
            open_timeout=settings.open_timeout,
            stall_timeout=settings.stall_timeout,
        )
        arrivals = Arrivals(proxies)
        pages = Pages(engines, doors, arrivals, lambda: (bridge.sockets, bridge.carried))
        servers = await _listen(settings, arrivals, bridge, pages, tls)
        kernel.settle_memory()
        await asyncio.sleep(0)  # whoever is here already need not wait for the end of the boot
        log.info("serving", address=_bound(servers[0]), engine=settings.engine, tls=tls is not None)
        _warn(settings)

        await stop.wait()

        log.info("draining", sockets=bridge.sockets, grace=settings.drain_grace)
        for server in servers:
            server.close(close_connections=False)
        await _drain(servers, settings.drain_grace)
    log.info("stopped")


def _warn(settings: Settings) -> None:
    """Say what an operator should know, and may not have meant."""
    log = structlog.get_logger()
    if settings.tls_cert is None and not settings.is_loopback:
        log.warning("no TLS on a public address: something in front must provide it", address=settings.listen)
    remote = [address for address in settings.engine if not is_loopback(host_of(address))]
    if remote and settings.engine_ca is None:
        log.warning("tokens go to a remote engine in clear: set RUNWIRE_GATEWAY_ENGINE_CA", engine=remote)


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
            engines.renew(functools.partial(_channel, credentials))
        log.info("certificates read again")

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


def _channel(credentials: grpc.ChannelCredentials | None, address: str, host: str) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(address, OPTIONS)
    # Found behind a name, it shows a certificate for that name.
    named = (("grpc.ssl_target_name_override", host),) if host_of(address) != host else ()
    return grpc.aio.secure_channel(address, credentials, (*OPTIONS, *named))


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
            select_subprotocol=_subprotocol,
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


def _subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Choose the first of the browser's offers that is ours. Where there is none, the default's frames are sent."""
    ours = {codec.subprotocol for codec in CODECS}
    return next((name for name in offered if name in ours), None)


def _bound(server: Server) -> str:
    host, port, *_ = server.sockets[0].getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
