"""A run as a process of its own: the default. Sees to it that there is always a zygote to fork from."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog

from engine_service.wire import Description, Isolation, RegistryError, Terms, Work
from engine_service.workers import NONE, Broker, Unwatched, Watcher
from engine_service.workers.cgroups import Cgroups
from engine_service.workers.demand import Demand
from engine_service.workers.fork_server import ForkServer
from engine_service.workers.worker import ProcessWorker

PAUSE = 1.0
"""Seconds until a zygote is tried again when none could be had."""
LOOK = 0.5
"""Seconds between two looks at the agents' files."""


UNWATCHED = Unwatched()


class OnChange(Protocol):
    """Hears whether there are processes to be had."""

    def __call__(self, *, is_serving: bool) -> None:
        """Hear it."""
        ...


class ProcessWorkers:
    """Gives every run a process of its own."""

    def __init__(
        self,
        terms: Terms,
        import_timeout: float,
        max_spares: int,
        on_change: OnChange,
        cgroups: Cgroups | None = None,
        watcher: Watcher = UNWATCHED,
        broker: Broker = NONE,
    ) -> None:
        self._watcher = watcher
        self._broker = broker
        self._isolation: Isolation = "jail" if terms.jail else "process"
        self._demand = Demand(max_spares)
        self._terms = terms
        self._cgroups = cgroups
        self._import_timeout = import_timeout
        self._on_change = on_change
        self._log = structlog.get_logger()
        self._fork_server: ForkServer
        self.known: Mapping[str, Description] = {}
        """What is known of each agent that was imported, by name, wherever its runs happen."""
        self._fork_servers = set[ForkServer]()  # with those that are retired and still have runs
        self._keeping = set[asyncio.Task[None]]()
        self._changing = asyncio.Lock()
        self._ending = False
        self._until = 0.0

    async def begin(self) -> None:
        """Start the first zygote. Raises RegistryError when the agents cannot be had."""
        await self._renew()
        if self._terms.reload:
            self._keep(self._replace_the_outdated())

    async def shut_down(self) -> None:
        """End every process there is."""
        self._ending = True
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        await asyncio.gather(*(fork_server.shut_down() for fork_server in self._fork_servers))

    async def start(self, work: Work) -> ProcessWorker:
        """Give a run a process. Raises WorkerError."""
        token = await self._broker.grant(work)
        try:
            worker = await self._fork_server.start(replace(work, token=token))
        except BaseException:
            self._broker.revoke(token)
            raise
        self._broker.follow(token, worker)
        worker.on_exit(partial(self._broker.revoke, token))
        return worker

    @property
    def agents(self) -> Mapping[str, Description]:
        """What is known of each agent whose runs happen here, by name."""
        return self._fork_server.agents

    @property
    def spares(self) -> int:
        """How many processes wait for runs."""
        return self._fork_server.spares

    def lease(self, until: float) -> None:
        """Have those runs that may be taken over end by then, whatever becomes of this process."""
        self._until = until
        for fork_server in self._fork_servers:
            fork_server.lease(until)

    async def _renew(self) -> None:
        """Have a new fork server. Raises OSError and RegistryError, and then the one before stays."""
        fork_server = self._server(self._terms)
        try:
            await fork_server.wait_ready()
            self.known = fork_server.agents
            terms = narrowed(self._terms, fork_server.agents, self._isolation)
            if terms != self._terms:  # only now it is known whom importing harms, or who is others': they are left out
                files = fork_server.files
                await fork_server.shut_down()
                fork_server = self._server(terms)
                await fork_server.wait_ready()
                fork_server.agents, fork_server.files = self.known, files
            fork_server.agents = {
                name: agent for name, agent in fork_server.agents.items() if agent.isolation == self._isolation
            }
            await fork_server.begin()
            if door := fork_server.take_door():
                leave = self._broker.listen(door)
                # Runs may outlive their zygote, by the time that they have.
                fork_server.died.add_done_callback(lambda _: self._later(self._terms.seconds, leave))
        except BaseException:
            fork_server.kill()
            raise
        self._fork_server = fork_server
        self._fork_servers.add(fork_server)
        if self._until:
            fork_server.lease(self._until)
        fork_server.died.add_done_callback(partial(self._on_exit, fork_server))

    def _server(self, terms: Terms) -> ForkServer:
        return ForkServer(terms, self._import_timeout, self._cgroups, self._demand, self._watcher)

    def _on_exit(self, fork_server: ForkServer, _: object) -> None:
        """Hear of a zygote's end. One that was retired has ended as it should; the one in use is missed."""
        if fork_server is self._fork_server and not self._ending:
            self._on_change(is_serving=False)
            self._log.error("the zygote died")
            self._keep(self._replace_the_dead(fork_server))
        else:
            self._fork_servers.discard(fork_server)

    def _tell_reloaded(self, before: Mapping[str, Description]) -> None:
        if before or self.agents:
            self._log.info("agents reloaded", agents=list(self.agents))
        for elsewhere in ("task", "ray"):
            if others := [name for name, agent in self.known.items() if agent.isolation == elsewhere]:
                self._log.warning(f"agents in {elsewhere} isolation stay as they were at the boot", agents=others)
        if moved := [name for name in before if name in self.known and name not in self.agents]:
            self._log.warning("agents that belong elsewhere now are gone until the engine starts again", agents=moved)

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(0 if self._ending else seconds, do)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def _replace_the_dead(self, dead: ForkServer) -> None:
        while self._fork_server is dead:
            try:
                async with self._changing:
                    if self._fork_server is dead:
                        await self._renew()
            except (OSError, RegistryError) as error:
                self._log.error("no zygote can be had", error=str(error))
                await asyncio.sleep(PAUSE)
        self._fork_servers.discard(dead)
        self._watcher.replaced()
        self._on_change(is_serving=True)

    async def _replace_the_outdated(self) -> None:
        seen = _times(self._fork_server.files)
        while True:
            await asyncio.sleep(LOOK)
            if (now := _times(self._fork_server.files)) == seen:
                continue
            try:
                async with self._changing:
                    old = self._fork_server
                    await self._renew()
                    old.retire()
                self._tell_reloaded(old.agents)
                now = _times(self._fork_server.files)
            except (OSError, RegistryError) as error:
                self._log.error("agents not reloaded", error=str(error))
            seen = now


def narrowed(terms: Terms, agents: Mapping[str, Description], isolation: Isolation) -> Terms:
    """Keep the modules that have agents of an isolation, and those apart none of whose agents are forked."""
    ours: dict[str, bool] = {}
    for agent in agents.values():
        if agent.isolation == isolation:
            ours[agent.source] = ours.get(agent.source, False) or agent.is_forked
    known = {agent.source for agent in agents.values()}
    modules = tuple(module for module in terms.modules if module in ours or module not in known)
    return replace(terms, modules=modules, apart=tuple(module for module, is_forked in ours.items() if not is_forked))


def _times(files: tuple[str, ...]) -> dict[str, float]:
    """Return when each file was last changed; 0 for one that is not there, as while it is being saved."""

    def time(file: str) -> float:
        try:
            return Path(file).stat().st_mtime
        except OSError:
            return 0

    return {file: time(file) for file in files}
