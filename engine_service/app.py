"""The composition root: reads downwards as the boot, upwards as the shutdown."""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from engine_service import kernel, registry
from engine_service.admission import Admission
from engine_service.agent import Work
from engine_service.identity import DevelopmentIdentity, Identity, JwtIdentity
from engine_service.isolation import GRACE, Isolation
from engine_service.isolation.process import ProcessIsolation
from engine_service.isolation.task import TaskIsolation
from engine_service.isolation.zygote import Terms
from engine_service.journal import MemoryJournals
from engine_service.keys import KeyFile, KeyFileError, Secret
from engine_service.rates import Rates
from engine_service.recording import Recordings
from engine_service.reflection import SERVICE_NAME, GuardedReflection
from engine_service.run import DRAINED, Run
from engine_service.servicer import SERVICE, Servicer
from engine_service.settings import BootError, Settings
from engine_service.transport import CertificateError, Certificates

RESUMES_PER_RUN = 10
"""How many times as often as a run is started one may be resumed: on a bad network that is often."""

SERVICES = (SERVICE, health.SERVICE_NAME, SERVICE_NAME)

OPTIONS = (
    ("grpc.max_metadata_size", 128 * 1024),  # a token that is too long is refused as others are, and not by gRPC
    ("grpc.absolute_max_metadata_size", 128 * 1024),
    ("grpc.so_reuseport", 0),  # or a second engine on the same port would start silently, and take half of the calls
    # A caller that is gone without a word is noticed; and callers may look whether we are, as often as gateways do.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)


async def serve(settings: Settings) -> None:
    """Serve until told to stop. Raises BootError or RegistryError when something that is needed is missing."""
    log = structlog.get_logger()
    stop = _stop_signal()
    kernel.settle()
    certificates = _certificates(settings)
    identity = _identity(settings)
    checkup: Any = cast("Any", health).aio.HealthServicer()  # its stubs know no aio
    telling = set[asyncio.Task[None]]()

    def tell(*, is_serving: bool) -> None:
        if not stop.is_set():
            status = HealthCheckResponse.SERVING if is_serving else HealthCheckResponse.NOT_SERVING
            task = asyncio.create_task(_set_health(checkup, status))
            telling.add(task)
            task.add_done_callback(telling.discard)

    terms = Terms(
        modules=settings.agents,
        max_event_bytes=settings.max_event_bytes,
        memory=settings.run_memory,
        seconds=settings.run_timeout,
        reload=settings.reload,
    )
    async with ProcessIsolation(terms, tell) as processes:
        isolations: dict[str, Isolation] = {"process": processes, **_tasks(settings, processes.agents)}
        admission = Admission(settings.max_runs, settings.max_runs_per_user, Rates(settings.runs_per_minute))

        def make_run(work: Work, isolation: str) -> Run:
            return Run(work, isolations[isolation], max_event_bytes=settings.max_event_bytes)

        # What one user's runs leave behind is bounded by what they could hold at once: it takes no other's room.
        per_user = settings.max_runs_per_user * settings.resume_buffer
        journals = MemoryJournals(settings.resume_buffer, per_user, settings.resume_memory)

        servicer = Servicer(
            agents=lambda: processes.agents,
            identity=identity,
            admission=admission,
            recordings=Recordings(admission, journals.open),
            resumes=Rates(RESUMES_PER_RUN * settings.runs_per_minute),
            make_run=make_run,
            run_timeout=settings.run_timeout,
            heartbeat=settings.heartbeat,
            max_resume_window=settings.max_resume_window,
        )
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((servicer.handler(),))
        add_HealthServicer_to_server(checkup, server)
        if settings.reflection:
            GuardedReflection(SERVICES, identity).add_to(server)
        address = _listen(server, settings.listen, certificates.credentials() if certificates else None)
        await server.start()
        tell(is_serving=True)
        log.info("serving", address=address, agents=list(processes.agents), tls=certificates is not None)

        await stop.wait()

        log.info("draining", runs=len(admission.runs()), grace=settings.drain_grace)
        await checkup.enter_graceful_shutdown()
        admission.close()
        ends = asyncio.get_running_loop().time() + settings.drain_grace
        await _drain(admission, settings.drain_grace)
        # gRPC would not wait for handlers that still clean up; by now there are none. It does wait for callers who
        # still read what a resumable run has said.
        await server.stop(grace=max(ends - asyncio.get_running_loop().time(), 1))
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


async def _set_health(checkup: Any, status: Any) -> None:
    for service in ("", SERVICE):
        await checkup.set(service, status)


def _tasks(settings: Settings, known: Mapping[str, dict[str, str]]) -> dict[str, Isolation]:
    """Import the agents that share our process: those that ask for it, and no others."""
    modules = {agent["module"] for agent in known.values() if agent["isolation"] == "task"}
    if not modules:
        return {}
    agents = registry.load(modules)
    ours = {name: agent for name, agent in agents.items() if agent.isolation == "task"}
    return {"task": TaskIsolation(ours, settings.max_event_bytes)}


def _identity(settings: Settings) -> Identity:
    secret, file = settings.jwt_secret, settings.jwt_key_file
    if secret and file:
        raise BootError("JWT_SECRET and JWT_KEY_FILE exclude each other: set one")
    if not (secret or file):
        if settings.jwt_issuer or settings.jwt_audience:
            raise BootError("JWT_ISSUER and JWT_AUDIENCE need a key: set JWT_KEY_FILE or JWT_SECRET")
        if not settings.is_loopback:
            raise BootError(
                f"without keys the engine believes everybody, and so does not listen on {settings.listen}, "
                "which is not loopback: set RUNWIRE_ENGINE_JWT_KEY_FILE or RUNWIRE_ENGINE_JWT_SECRET"
            )
        return DevelopmentIdentity()
    try:
        keys = Secret(secret.get_secret_value()) if secret else KeyFile(Path(file or ""))
    except KeyFileError as error:
        raise BootError(str(error)) from error
    return JwtIdentity(keys, settings.jwt_issuer, settings.jwt_audience)


def _certificates(settings: Settings) -> Certificates | None:
    if not (settings.tls_cert and settings.tls_key):
        if settings.tls_cert or settings.tls_key or settings.tls_client_ca:
            raise BootError("TLS_CERT and TLS_KEY go together, and TLS_CLIENT_CA with both")
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: None)  # there is nothing to read again
        return None
    try:
        certificates = Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    except CertificateError as error:
        raise BootError(str(error)) from error

    def reload() -> None:
        try:
            certificates.reload()
            structlog.get_logger().info("certificates read again")
        except CertificateError as error:
            structlog.get_logger().error("certificates not read again", error=str(error))

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    return certificates


def _listen(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
    """Bind the address, and return it with the port that was bound."""
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise BootError(f"cannot listen on {address}: it is taken, or no address of this machine") from error
    return f"{address.rpartition(':')[0]}:{port}"


async def _drain(admission: Admission, grace: float) -> None:
    """Give the runs time to finish, then end those that are left."""
    try:
        async with asyncio.timeout(grace):
            await admission.wait_empty()
    except TimeoutError:
        for run in admission.runs():
            run.stop(DRAINED)
        try:
            async with asyncio.timeout(GRACE + 1):
                await admission.wait_empty()
        except TimeoutError:  # a caller that reads nothing cannot be told
            structlog.get_logger().warning("callers left behind", runs=len(admission.runs()))
