"""A run as a process of its own: the default. Sees to it that there is always a zygote to fork from."""

import asyncio
import functools
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import structlog

from engine_service.wire import Description, RegistryError, Terms, Work
from engine_service.workers import Unwatched, Watcher
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
    ) -> None:
        self._watcher = watcher
        self._demand = Demand(max_spares)
        self._terms = terms
        self._cgroups = cgroups
        self._import_timeout = import_timeout
        self._on_change = on_change
        self._log = structlog.get_logger()
        self._fork_server: ForkServer
        self.agents: Mapping[str, Description] = {}
        """What is known of each agent, by name. Those that are the engine's own tasks stay as they were at the boot."""
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
        return await self._fork_server.start(work)

    @property
    def zygote(self) -> int:
        """The number of the process that others are forked from."""
        return self._fork_server.pid

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
            if apart := _apart(fork_server.agents):  # only now it is known whom importing harms: they are left out
                known, files = fork_server.agents, fork_server.files
                await fork_server.shut_down()
                fork_server = self._server(replace(self._terms, apart=apart))
                await fork_server.wait_ready()
                fork_server.agents, fork_server.files = known, files
            await fork_server.begin()
        except BaseException:
            fork_server.kill()
            raise
        self._fork_server = fork_server
        self.agents = _renewed(self.agents, fork_server.agents)
        self._fork_servers.add(fork_server)
        if self._until:
            fork_server.lease(self._until)
        fork_server.died.add_done_callback(functools.partial(self._on_exit, fork_server))

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

    def _named(self, isolation: str) -> list[str]:
        return [name for name, agent in self._fork_server.agents.items() if agent.isolation == isolation]

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
                self._log.info("agents reloaded", agents=self._named("process"))
                if tasks := self._named("task"):
                    self._log.warning("agents in task isolation stay as they were at the boot", agents=tasks)
                now = _times(self._fork_server.files)
            except (OSError, RegistryError) as error:
                self._log.error("agents not reloaded", error=str(error))
            seen = now


def _renewed(before: Mapping[str, Description], now: Mapping[str, Description]) -> Mapping[str, Description]:
    if not before:
        return now
    tasks = {name: agent for name, agent in before.items() if agent.isolation == "task"}
    others = {name: agent for name, agent in now.items() if agent.isolation != "task"}
    return dict(sorted((others | tasks).items()))


def _apart(agents: Mapping[str, Description]) -> tuple[str, ...]:
    """Return the modules none of whose agents are forked."""
    sources = {agent.source: True for agent in agents.values()}
    for agent in agents.values():
        sources[agent.source] &= not agent.is_forked and agent.isolation == "process"
    return tuple(source for source, is_apart in sources.items() if is_apart)


def _times(files: tuple[str, ...]) -> dict[str, float]:
    """Return when each file was last changed; 0 for one that is not there, as while it is being saved."""

    def time(file: str) -> float:
        try:
            return Path(file).stat().st_mtime
        except OSError:
            return 0

    return {file: time(file) for file in files}
