"""The composition root: reads downwards as the boot, upwards as the shutdown."""

import asyncio
import os
import signal
import ssl
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection
from runwire.v1 import engine_pb2 as pb

from engine_service import registry
from engine_service.admission import Admission
from engine_service.agent import Agent, Work
from engine_service.identity import DevelopmentIdentity
from engine_service.isolation import GRACE
from engine_service.isolation.task import TaskIsolation
from engine_service.run import DRAINED, Run
from engine_service.servicer import SERVICE, Servicer
from engine_service.settings import BootError, Settings

SERVICES = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)

OPTIONS = (
    ("grpc.so_reuseport", 0),  # or a second engine on the same port would start silently, and take half of the calls
)


async def serve(settings: Settings) -> None:
    """Serve until told to stop. Raises BootError when something that is needed is missing."""
    log = structlog.get_logger()
    stop = _stop_signal()
    credentials = _credentials(settings)
    identity = _identity(settings)
    agents = _agents(settings)
    infos = {name: _info(agent) for name, agent in agents.items()}
    isolations = {"task": TaskIsolation(agents, settings.max_event_bytes)}
    admission = Admission(settings.max_runs, settings.max_runs_per_user)

    def make_run(work: Work, info: pb.AgentInfo) -> Run:
        isolation = isolations[info.isolation]
        return Run(work, isolation, max_event_bytes=settings.max_event_bytes, heartbeat=settings.heartbeat)

    servicer = Servicer(
        agents=lambda: infos,
        identity=identity,
        admission=admission,
        make_run=make_run,
        run_timeout=settings.run_timeout,
    )
    checkup: Any = cast("Any", health).aio.HealthServicer()  # its stubs know no aio
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((servicer.handler(),))
    add_HealthServicer_to_server(checkup, server)
    if settings.reflection:
        reflection.enable_server_reflection(SERVICES, server)
    address = _listen(server, settings.listen, credentials)
    await server.start()
    await checkup.set(SERVICE, HealthCheckResponse.SERVING)
    log.info("serving", address=address, agents=list(infos), tls=credentials is not None)

    await stop.wait()

    log.info("draining", runs=len(admission.runs()), grace=settings.drain_grace)
    await checkup.enter_graceful_shutdown()
    admission.close()
    await _drain(admission, settings.drain_grace)
    # gRPC would not wait for handlers that still clean up; by now there are none.
    await server.stop(grace=1)
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


def _agents(settings: Settings) -> dict[str, type[Agent]]:
    try:
        return registry.load(settings.agents)
    except registry.RegistryError as error:
        raise BootError(str(error)) from error


def _info(agent: type[Agent]) -> pb.AgentInfo:
    return pb.AgentInfo(name=agent.name, description=agent.description(), isolation=agent.isolation)


def _identity(settings: Settings) -> DevelopmentIdentity:
    if not settings.is_loopback:
        raise BootError(f"{settings.listen} is not a loopback address, and without keys the engine believes everybody")
    return DevelopmentIdentity()


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    if not (settings.tls_cert or settings.tls_key):
        return None
    if not (settings.tls_cert and settings.tls_key):
        raise BootError("TLS_CERT and TLS_KEY go together: set both, or none")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
        pair = (Path(settings.tls_key).read_bytes(), Path(settings.tls_cert).read_bytes())
    except OSError as error:
        raise BootError(f"the certificate {settings.tls_cert} or its key cannot be used: {error}") from error
    return grpc.ssl_server_credentials([pair])


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
