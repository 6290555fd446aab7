"""Certificates: what we show to browsers and to the engine, and how they are read again."""

import asyncio
import functools
import signal
import ssl

import grpc
import grpc.aio
import structlog

from edge_gateway.engines import OPTIONS, Engines
from edge_gateway.settings import BootError, Settings
from runwire.service.settings import host_of


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """Return what we show to browsers, if that is set. Raises BootError."""
    cert, key = settings.tls_cert, settings.tls_key
    if not (cert and key):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # TLS 1.2 or newer, by Python's own default
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:
        raise BootError(f"the certificate {settings.tls_cert} or its key cannot be used: {error}") from error
    return context


def engine_credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """Return how we speak to the engine: encrypted when its CA is named, and with a name of our own if there is one."""
    if not settings.engine_ca:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.engine_ca)
        if settings.engine_cert and settings.engine_key:
            context.load_cert_chain(settings.engine_cert, settings.engine_key)
    except OSError as error:
        raise BootError(f"the engine's CA or our certificate for it cannot be used: {error}") from error
    ours = [path.read_bytes() if path else None for path in (settings.engine_key, settings.engine_cert)]
    return grpc.ssl_channel_credentials(settings.engine_ca.read_bytes(), *ours)


def reload_on_hangup(settings: Settings, tls: ssl.SSLContext | None, engines: Engines) -> None:
    """Read every certificate again on SIGHUP, for the connections that come after."""

    def reload() -> None:
        log = structlog.get_logger()
        try:
            # Looked at first: a pair that doesn't fit would leave the context that serves with half of it.
            server_context(settings)
            credentials = engine_credentials(settings)
        except BootError as error:
            log.error("certificates not read again", error=str(error))  # noqa: TRY400 - its text says it all
            return
        if tls and settings.tls_cert and settings.tls_key:
            tls.load_cert_chain(settings.tls_cert, settings.tls_key)
        if credentials:
            engines.renew(functools.partial(open_channel, credentials))
        log.info("certificates read again")

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


def open_channel(credentials: grpc.ChannelCredentials | None, address: str, host: str) -> grpc.aio.Channel:
    """Open a channel to an address whose certificate, if it has one, is for a host."""
    if credentials is None:
        return grpc.aio.insecure_channel(address, OPTIONS)
    # Found behind a name, it shows a certificate for that name.
    named = (("grpc.ssl_target_name_override", host),) if host_of(address) != host else ()
    return grpc.aio.secure_channel(address, credentials, (*OPTIONS, *named))
