"""The composition root: reads downwards as the boot, upwards as the shutdown."""

import asyncio
import importlib
import importlib.util
import os
import pwd
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import grpc
import grpc.aio
import structlog

from engine_service.broker.messages import Serve
from engine_service.calls.health import SERVICE_NAME as HEALTH
from engine_service.calls.health import Health
from engine_service.calls.identity import DevelopmentIdentity, Identity, JwtIdentity, Scopes
from engine_service.calls.keys import KeyAddress, KeyFile, Keys, KeysError, Secret
from engine_service.calls.reflection import SERVICE_NAME as REFLECTION
from engine_service.calls.reflection import GuardedReflection
from engine_service.calls.refusals import Refusals
from engine_service.calls.servicer import SERVICE, Servicer
from engine_service.calls.transport import CertificateError, Certificates
from engine_service.clock import STANDSTILL
from engine_service.cluster.messages import Connect
from engine_service.operations.metrics import Metrics
from engine_service.operations.pages import Pages as OperatorsPages
from engine_service.operations.roster import Roster
from engine_service.operations.servicer import SERVICE as OPERATIONS
from engine_service.operations.servicer import Operating, Operators
from engine_service.operations.tracing import Traces
from engine_service.runs.admission import Admission
from engine_service.runs.follower import Follow, Followers
from engine_service.runs.peers import Peers
from engine_service.runs.quota import Quota, What
from engine_service.runs.resumable import Resumables
from engine_service.runs.run import DRAINED, Run
from engine_service.runtime import registry
from engine_service.settings import BootError, Settings
from engine_service.stores.memory import MemoryJournals, MemoryStore
from engine_service.stores.store import AwayError, Store
from engine_service.wire import GRACE, Description, JailTerms, Terms, Work
from engine_service.workers import NONE, Workers
from engine_service.workers.broker import BrokerError, BrokerProcess
from engine_service.workers.cgroups import Cgroups
from engine_service.workers.helper import HelperError
from engine_service.workers.home import Home
from engine_service.workers.process import OnChange, ProcessWorkers
from engine_service.workers.processes import Processes
from engine_service.workers.ray import RayWorkers
from engine_service.workers.task import TaskWorkers
from runwire.service import kernel
from runwire.service.arrivals import say_less
from runwire.service.operations import Figures, Operations, Page, desk_of, healthy, ready, seated
from runwire.service.settings import host_of, is_loopback
from runwire.service.signals import StoppedError, stop_signal, unless
from runwire.service.tracing import Tracing

PER_RUN: dict[What, int] = {"runs": 1, "resumes": 10, "calls": 20}
"""How often one may do what, for each run that one may start: on a bad network runs are resumed often."""

AGAIN = 1.0
"""Seconds until an engine that drains asks again who takes its runs."""

WITH_THEIR_ENGINE = {"task", "ray"}
"""Isolations of runs that no other engine takes over: nobody could see to it that they have ended."""

SERVICES = (SERVICE, HEALTH, REFLECTION)

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
    with suppress(StoppedError):  # while it was still to begin
        await _serve(settings, stop_signal())


async def _serve(settings: Settings, stop: asyncio.Event) -> None:
    log = structlog.get_logger()
    kernel.configure()
    say_less()
    certificates = _certificates(settings)
    health = Health(SERVICES)

    def tell(*, is_serving: bool) -> None:
        if not stop.is_set():
            health.set(is_serving=is_serving)

    async with AsyncExitStack() as stack:
        cgroups = Cgroups.delegated(
            settings.run_memory, settings.max_runs_per_user
        )  # before anything is started: it will be in there, too
        metrics, day = Metrics(), Day(settings.tokens_per_user_per_day)
        terms, broker = await unless(stop, _begin_broker(settings, day, stack))
        processes = _processes(settings, terms, tell, cgroups, metrics, broker)
        stack.push_async_callback(processes.shut_down)
        identity = await unless(stop, _identity(settings))
        await unless(stop, processes.begin())
        cluster = await unless(stop, _cluster(settings, terms, processes.agents, stack))
        isolations: dict[str, Workers] = {
            **processes.by_isolation, **_tasks(terms, processes.agents), **cluster,
        }  # fmt: skip
        follow, stop_following = _follow(settings, metrics)
        stack.push_async_callback(stop_following)
        house = _house(settings, processes, isolations, follow)
        stack.push_async_callback(house.store.close)
        day.store = house.store
        await unless(stop, _begin(house))
        _watch(metrics, settings, processes, house)
        refusals = Refusals(metrics.refused)
        operators = Operators(identity, refusals)
        roster = Roster(house.admission, house.resumables, house.peers)
        operations = Operations(_pages(metrics, health) | OperatorsPages(roster, operators).all())
        stack.push_async_callback(operations.close)
        desk = await operations.begin(desk_of(settings, "operations_listen"))
        servicer = _servicer(settings, identity, processes, house, refusals)
        credentials = certificates.credentials() if certificates else None
        server = _server(settings, servicer, health, identity, refusals)
        address = _listen(server, settings.listen, credentials)
        admin = _admin(settings, Operating(roster, operators), identity, refusals)
        at = seated(desk_of(settings, "admin_listen"), partial(_bind, admin, credentials=credentials))
        stack.push_async_callback(admin.stop, None)
        await admin.start()
        await server.start()
        tell(is_serving=True)
        kernel.settle_memory()
        await asyncio.sleep(0)  # whoever is here already need not wait for the end of the boot
        about = {
            "operations": desk,
            "admin": at,
            "tls": certificates is not None,
            "cgroups": cgroups is not None,
        }
        log.info("serving", address=address, agents=list(processes.agents), **about)
        _warn(settings, processes.agents)

        await stop.wait()

        log.info("draining", runs=len(house.admission.runs()), grace=settings.drain_grace)
        await _wind_down(server, health, house, settings.drain_grace)
    log.info("stopped")


class House(NamedTuple):
    """Where runs live: the book of those there are, what outlives calls, and who makes them."""

    admission: Admission
    journals: MemoryJournals
    store: Store
    quota: Quota
    resumables: Resumables
    peers: Peers
    make_run: Callable[[Work, str], Run]


def _house(settings: Settings, processes: Processes, isolations: Mapping[str, Workers], follow: Follow) -> House:
    def make_run(work: Work, isolation: str) -> Run:
        survives = isolation not in WITH_THEIR_ENGINE
        most, follower = settings.max_event_bytes, follow(work)
        work = replace(work, span=follower.traceparent or work.traceparent)
        return Run(work, isolations[isolation], max_event_bytes=most, survives=survives, follower=follower)

    def can_go_on(agent: str) -> bool:
        """Tell whether another engine's run of an agent can have a process of its own here."""
        return agent in processes.agents and processes.agents[agent].isolation not in WITH_THEIR_ENGINE

    def make_again(work: Work) -> Run | None:
        """Make another attempt of a run, if it can go on here."""
        return make_run(work, processes.agents[work.agent].isolation) if can_go_on(work.agent) else None

    admission = Admission(settings.max_runs, settings.max_runs_per_user)
    # What one user's runs leave behind is bounded by what they could hold at once: it takes no other's room.
    per_user = settings.max_runs_per_user * settings.resume_buffer
    journals = MemoryJournals(settings.resume_buffer, per_user, settings.resume_memory)
    store = _store(settings, journals)
    quota = Quota(store, settings.max_runs_per_user)
    resumables = Resumables(admission, quota, store.open)
    peers = Peers(store, admission, resumables, can_go_on, make_again, processes.lease)
    return House(admission, journals, store, quota, resumables, peers, make_run)


def _follow(settings: Settings, metrics: Metrics) -> tuple[Follow, Callable[[], Awaitable[None]]]:
    """Return what follows runs, and what ends that."""
    if settings.otlp_endpoint is None:
        return lambda work: Followers((metrics.follow(work),)), _nothing
    tracing = Tracing("engine", settings.otlp_endpoint)
    traces = Traces(tracing, with_content=settings.otlp_content)
    return lambda work: Followers((metrics.follow(work), traces.follow(work))), tracing.close


async def _nothing() -> None:
    pass


def _watch(metrics: Metrics, settings: Settings, processes: Processes, house: House) -> None:
    """Have figures of all that there is."""
    metrics.watch(house.admission, processes, house.journals, (settings.max_runs, settings.resume_memory))
    if settings.store:
        metrics.watch_store(house.store)


def _server(
    settings: Settings, servicer: Servicer, health: Health, identity: Identity, refusals: Refusals
) -> grpc.aio.Server:
    """Return a server with all that callers may call."""
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((servicer.handler(),))
    health.add_to(server)
    if settings.reflection:
        GuardedReflection(SERVICES, identity, refusals).add_to(server)
    return server


def _admin(settings: Settings, operating: Operating, identity: Identity, refusals: Refusals) -> grpc.aio.Server:
    """Return a server with what operators may call, and nobody else."""
    server = grpc.aio.server(options=OPTIONS)
    operating.add_to(server)
    if settings.reflection:
        GuardedReflection((OPERATIONS, REFLECTION), identity, refusals).add_to(server)
    return server


def _warn(settings: Settings, agents: Mapping[str, Description]) -> None:
    """Say what an operator should know, and may not have meant."""
    log = structlog.get_logger()
    is_sharing = any(agent.isolation == "task" for agent in agents.values())
    free = [agent.name for agent in agents.values() if agent.isolation != "jail"]
    if settings.isolation == "jail" and free:
        log.warning("agents that are in no jail, since they say so themselves", agents=free)
    reaches = "openai" in settings.upstreams
    if not settings.assistant_model:
        whose = "" if reaches else ", and OPENAI_BASE_URL or OPENAI_API_KEY"
        advice = f"there is no assistant: set RUNWIRE_ENGINE_ASSISTANT_MODEL{whose}"
        log.info(advice)
    elif settings.isolation == "jail" and not reaches:
        log.warning(
            "the assistant is in a jail, and reaches no model: name it in RUNWIRE_ENGINE_UPSTREAMS, as openai=…"
        )
    _warn_of_the_cluster(settings, agents)
    if settings.upstreams:
        log.info("model servers are called by the broker", upstreams=list(settings.upstreams))
    if settings.development:
        log.warning("development: whoever says dev:NAME is believed to be NAME", network=settings.development_network)
    if settings.tls_cert is None and not is_loopback(host_of(settings.admin_listen)):
        log.warning("operators' tokens go in clear: ADMIN_LISTEN is no loopback, and there is no TLS_CERT")
    if os.geteuid() == 0 and is_sharing and settings.run_as:
        log.warning("agents with isolation 'task' are in the engine's process, and so root: RUN_AS is for the others")
    if os.geteuid() == 0 and not settings.run_as:
        log.warning("agents run as root, as the engine does: set RUNWIRE_ENGINE_RUN_AS to a user with fewer rights")


def _warn_of_the_cluster(settings: Settings, agents: Mapping[str, Description]) -> None:
    log = structlog.get_logger()
    wanting = [agent.name for agent in agents.values() if agent.resources and agent.isolation != "ray"]
    if wanting:
        log.warning("agents that say what they need of a cluster, and are on none: isolation = 'ray'", agents=wanting)
    remote = [agent.name for agent in agents.values() if agent.isolation == "ray"]
    if settings.upstreams and remote:
        log.warning(
            "agents on the cluster call models by themselves: the broker, and its budgets, are here", agents=remote
        )


class Day:
    """Counts what users may use of models in a day, once there is a store."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.store: Store | None = None

    async def spend(self, pays: str, tokens: int) -> int | None:
        """Count tokens, and return what is left; None where there is no limit."""
        if self._limit is None or self.store is None:
            return None
        return max(self._limit - await self.store.spend(pays, tokens), 0)


async def _begin_broker(settings: Settings, day: Day, stack: AsyncExitStack) -> tuple[Terms, BrokerProcess | None]:
    """Start the broker, if there are model servers to be reached through it, and say what zygotes are to know."""
    home = stack.enter_context(Home(_user(settings.run_as))).path
    upstreams = settings.model_servers
    if not upstreams:
        return _terms(settings, home, ""), None
    if not importlib.util.find_spec("aiohttp"):
        raise BootError("UPSTREAMS: runs reach them through aiohttp: pip install 'runwire[broker]'")
    broker = BrokerProcess(Serve(upstreams, settings.tokens_per_run), day.spend)
    try:
        await broker.begin()
    except BrokerError as error:
        raise BootError(str(error)) from error
    stack.push_async_callback(broker.close)
    return _terms(settings, home, broker.address), broker


def _processes(
    settings: Settings,
    terms: Terms,
    tell: OnChange,
    cgroups: Cgroups | None,
    metrics: Metrics,
    broker: BrokerProcess | None,
) -> Processes:
    """Return who gives runs processes of their own."""

    def make(terms: Terms, on_change: OnChange) -> ProcessWorkers:
        most, patience = settings.max_spares, settings.import_timeout
        return ProcessWorkers(terms, patience, most, on_change, cgroups, metrics, broker or NONE)

    jail = JailTerms(
        home=terms.home,
        read=settings.jail_read,
        disk=settings.jail_disk,
        require=settings.jail_require,
        environ=settings.jail_env,
    )
    return Processes(terms, jail, tell, make)


def _terms(settings: Settings, home: str, broker: str) -> Terms:
    assistant = settings.assistant_model is not None
    if assistant and not importlib.util.find_spec("httpx2"):
        raise BootError("ASSISTANT_MODEL: the assistant calls its model with httpx2: pip install 'runwire[assistant]'")
    modules = registry.sources(
        settings.agents,
        demo=settings.has_demo_agents,
        neighbours=settings.has_demo_agents and settings.development,  # they are no good company
        assistant=assistant,
    )
    if not modules:
        raise BootError(
            "there are no agents: name them in RUNWIRE_ENGINE_AGENTS, or a model for the assistant in "
            "RUNWIRE_ENGINE_ASSISTANT_MODEL; with --development there are some to try"
        )
    return Terms(
        modules=modules,
        max_event_bytes=settings.max_event_bytes,
        memory=settings.run_memory,
        seconds=settings.run_timeout,
        ask_timeout=settings.ask_timeout,
        reload=settings.reload,
        isolation=settings.isolation,
        assistant_model=settings.assistant_model,
        user=_user(settings.run_as),
        home=home,
        upstreams=tuple(settings.upstreams),
        broker=broker,
    )


def _servicer(
    settings: Settings, identity: Identity, processes: Processes, house: House, refusals: Refusals
) -> Servicer:
    return Servicer(
        agents=lambda: processes.agents,
        identity=identity,
        admission=house.admission,
        resumables=house.resumables,
        peers=house.peers,
        quota=house.quota,
        make_run=house.make_run,
        refusals=refusals,
        run_timeout=settings.run_timeout,
        heartbeat=settings.heartbeat,
        stall_timeout=settings.stall_timeout,
        max_resume_window=settings.max_resume_window,
        is_shared=settings.store is not None,
    )


def _pages(metrics: Metrics, health: Health) -> dict[str, Page]:
    """Return what operators see, by its paths."""
    return {
        "/metrics": Figures(metrics.registry, metrics.refresh).page,
        "/healthz": healthy,
        "/readyz": ready(lambda: health.is_serving, "the engine takes no runs"),
    }


def _store(settings: Settings, journals: MemoryJournals) -> Store:
    """Return what is shared with other engines, if anything is."""
    per_minute: dict[str, int] = {what: many * settings.runs_per_minute for what, many in PER_RUN.items()}
    if settings.store is None:
        return MemoryStore(journals, per_minute)
    if not importlib.util.find_spec("redis"):
        raise BootError("STORE: it is spoken to with redis-py: pip install 'runwire[store]'")
    valkey = importlib.import_module("engine_service.stores.valkey.store")
    longest = settings.run_timeout + STANDSTILL + GRACE
    store: Store = valkey.ValkeyStore(
        settings.store.get_secret_value(),
        journals,
        per_minute,
        max_runs_per_user=settings.max_runs_per_user,
        longest=longest,
    )
    return store


async def _begin(house: House) -> None:
    try:
        await house.store.begin(house.peers)
    except AwayError as error:
        raise BootError(str(error)) from error


def _user(name: str | None) -> tuple[int, int] | None:
    """Return whose rights agents have: a user's number, and their group's."""
    if name is None:
        return None
    try:
        user = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError as error:
        raise BootError(f"RUNWIRE_ENGINE_RUN_AS={name}: there is no such user") from error
    if os.geteuid() not in {0, user.pw_uid}:
        raise BootError(f"RUNWIRE_ENGINE_RUN_AS={name}: only an engine that root starts can make agents another user")
    return (user.pw_uid, user.pw_gid) if os.geteuid() == 0 else None


def _tasks(terms: Terms, known: Mapping[str, Description]) -> dict[str, Workers]:
    """Import the agents that share our process: those that ask for it, and no others."""
    tasks = {name: agent.source for name, agent in known.items() if agent.isolation == "task"}
    if not tasks:
        return {}
    agents = registry.load(set(tasks.values()))
    ours = {name: agents[name] for name in tasks}
    return {"task": TaskWorkers(ours, terms)}


async def _cluster(
    settings: Settings, terms: Terms, known: Mapping[str, Description], stack: AsyncExitStack
) -> dict[str, Workers]:
    """Connect to the cluster, if there are agents for it."""
    remote = [name for name, agent in known.items() if agent.isolation == "ray"]
    if not remote:
        return {}
    if settings.ray_address is None:
        raise BootError(f"the agent {remote[0]!r} runs on a Ray cluster: set RUNWIRE_ENGINE_RAY_ADDRESS")
    if not importlib.util.find_spec("ray"):
        raise BootError("RAY_ADDRESS: the cluster is spoken to with Ray: pip install 'runwire[ray]'")
    environment = settings.ray_runtime_env.get_secret_value() if settings.ray_runtime_env else ""
    connect = Connect(settings.ray_address, environment)
    workers = RayWorkers(connect, terms, known, settings.import_timeout)
    try:
        await workers.begin()
    except HelperError as error:
        about = " with this RAY_RUNTIME_ENV" if settings.ray_runtime_env else ""
        raise BootError(f"RAY_ADDRESS={settings.ray_address}{about}: the cluster cannot be had: {error}") from error
    stack.push_async_callback(workers.shut_down)
    return {"ray": workers}


async def _identity(settings: Settings) -> Identity:
    if settings.development:
        return DevelopmentIdentity(settings.development_network)
    try:
        scopes = Scopes(
            claims=settings.jwt_claims,
            agents_claim=settings.jwt_agents_claim,
            act=settings.jwt_act_scope,
            approve=settings.jwt_approve_scope,
            operator=settings.jwt_operator_scope,
        )
        return JwtIdentity(await _keys(settings), settings.jwt_issuer, settings.jwt_audience, scopes)
    except KeysError as error:
        raise BootError(str(error)) from error


async def _keys(settings: Settings) -> Keys:
    if settings.jwt_keys_url:
        address = KeyAddress(str(settings.jwt_keys_url))
        await address.fetch()
        return address
    if settings.jwt_key_file:
        return KeyFile(settings.jwt_key_file)
    if settings.jwt_secret:
        return Secret(settings.jwt_secret.get_secret_value().encode())
    assert settings.jwt_secret_file, "there is a key"  # noqa: S101 - for the reader, and mypy
    try:
        return Secret(settings.jwt_secret_file.read_bytes().strip())
    except OSError as error:
        raise BootError(f"RUNWIRE_ENGINE_JWT_SECRET_FILE cannot be read: {error}") from error


def _certificates(settings: Settings) -> Certificates | None:
    if not (settings.tls_cert and settings.tls_key):
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
        return _bind(server, address, credentials)
    except RuntimeError as error:
        raise BootError(f"cannot listen on {address}: it is taken, or no address of this machine") from error


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    return f"{address.rpartition(':')[0]}:{port}"


async def _wind_down(server: grpc.aio.Server, health: Health, house: House, grace: float) -> None:
    """Take no more runs, see those off that there are, and stop."""
    health.set(is_serving=False)
    house.admission.close()
    ends = asyncio.get_running_loop().time() + grace
    await _drain(house.admission, house.peers, grace)
    health.close()
    # gRPC would not wait for handlers that still clean up; by now there are none. It does wait for callers who
    # still read what a resumable run has said.
    await server.stop(grace=max(ends - asyncio.get_running_loop().time(), 1))


async def _drain(admission: Admission, peers: Peers, grace: float) -> None:
    """Let runs go on elsewhere if they can, give the others time to finish, then end those that are left."""
    peers.send_away()
    try:
        async with asyncio.timeout(grace):
            while admission.runs():
                await peers.hand_over()
                with suppress(TimeoutError):  # meanwhile others may have saved, or have room
                    async with asyncio.timeout(AGAIN):
                        await admission.wait_empty()
    except TimeoutError:
        for run in admission.runs():
            run.stop(DRAINED)
        try:
            async with asyncio.timeout(GRACE + 1):
                await admission.wait_empty()
        except TimeoutError:  # a caller that reads nothing cannot be told
            structlog.get_logger().warning("callers left behind", runs=len(admission.runs()))
