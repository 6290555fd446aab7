"""The composition root: reads downwards as the boot, upwards as the shutdown."""

import asyncio
import os
import signal
import ssl
from collections.abc import Sequence

import grpc
import grpc.aio
import structlog
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_sockets
from websockets.typing import Subprotocol

from edge_gateway.bridge import Bridge
from edge_gateway.close_codes import RESTARTING
from edge_gateway.engine import Engine
from edge_gateway.frames import CODECS
from edge_gateway.pages import Pages
from edge_gateway.settings import BootError, Settings

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # the engine bounds what it sends
    ("grpc.lb_policy_name", "round_robin"),
    # An engine that comes back is found within two seconds; gRPC's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


async def serve(settings: Settings) -> None:
    """Serve until told to stop. Raises BootError when something that is needed is missing."""
    log = structlog.get_logger()
    stop = _stop_signal()
    tls = _tls(settings)
    async with grpc.aio.insecure_channel(_target(settings.engine), CHANNEL_OPTIONS) as channel:
        engine = Engine(channel)
        bridge = Bridge(engine, settings.open_timeout)
        pages = Pages(engine.is_serving)
        server = await _listen(settings, bridge, pages, tls)
        log.info("serving", address=_bound(server), engine=settings.engine, tls=tls is not None)

        await stop.wait()

        log.info("draining", sockets=len(server.connections), grace=settings.drain_grace)
        server.close(close_connections=False)
        try:
            async with asyncio.timeout(settings.drain_grace):
                await server.wait_closed()
        except TimeoutError:
            closing = [socket.close(RESTARTING, "The gateway is restarting.") for socket in server.connections]
            await asyncio.gather(*closing)
            await server.wait_closed()
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


def _target(addresses: Sequence[str]) -> str:
    return addresses[0] if len(addresses) == 1 else f"ipv4:{','.join(addresses)}"


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not (settings.tls_cert or settings.tls_key):
        return None
    if not (settings.tls_cert and settings.tls_key):
        raise BootError("TLS_CERT and TLS_KEY go together: set both, or none")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:
        raise BootError(f"the certificate {settings.tls_cert} or its key cannot be used: {error}") from error
    return context


async def _listen(settings: Settings, bridge: Bridge, pages: Pages, tls: ssl.SSLContext | None) -> Server:
    host, _, port = settings.listen.rpartition(":")
    try:
        return await serve_sockets(
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
            ping_timeout=settings.ping,
            max_size=settings.max_frame_bytes,
        )
    except OSError as error:
        raise BootError(f"cannot listen on {settings.listen}: it is taken, or no address of this machine") from error


def _subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Choose the first of the browser's offers that is ours. Where there is none, the default's frames are sent."""
    ours = {codec.subprotocol for codec in CODECS}
    return next((name for name in offered if name in ours), None)


def _bound(server: Server) -> str:
    host, port, *_ = server.sockets[0].getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
