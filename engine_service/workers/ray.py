"""A run on a Ray cluster, as the engine sees it: a driver, which is a process of its own, and the runs that it has."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import structlog

from engine_service import resources
from engine_service.cluster.messages import (
    CODEC,
    MAX_MESSAGE,
    Begin,
    Connect,
    Connected,
    Ended,
    Kill,
    Logged,
    NotConnected,
    Placed,
    Rehearse,
    Rehearsed,
)
from engine_service.messages import NonsenseError
from engine_service.wire import Description, RegistryError, Terms, Work
from engine_service.workers import WorkerError
from engine_service.workers.helper import Helper, HelperError
from engine_service.workers.output import MAX_OUTPUT
from engine_service.workers.process import narrowed
from engine_service.workers.worker import ChannelWorker

BOOT = 60.0
"""Seconds that the driver may take until it is connected, and a node to try an agent."""
PATIENCE = 5.0
"""Seconds that the driver may owe us the end of a run that is to be killed. Then it hangs, and is killed."""
MAX_HOW = 200
"""Characters of how a run ended, or of what happened to it."""
LINE = 100
"""Characters that a line of the log counts for, besides its text."""
DIED = "the driver on the cluster died"


class RayWorkers:
    """Gives every run a place on the cluster."""

    def __init__(
        self,
        connect: Connect,
        terms: Terms,
        agents: Mapping[str, Description],
        import_timeout: float,
    ) -> None:
        self._connect = connect
        self._terms = {name: _terms(terms, agents, agent) for name, agent in agents.items() if agent.isolation == "ray"}
        # What is checked here need not travel.
        self._agents = {name: replace(agents[name], parameters="", text="") for name in self._terms}
        self._import_timeout = import_timeout
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger()
        self._count = 0
        self._workers: dict[int, RayWorker] = {}
        self._rehearsals: dict[int, asyncio.Future[Rehearsed]] = {}
        self._helper = Helper(
            "driver", "engine_service.cluster", max_message=MAX_MESSAGE, on_message=self._hear, user=terms.user
        )

    async def begin(self) -> None:
        """Connect, and find that each agent's runs would get somewhere. Raises HelperError and RegistryError."""
        await self._start()
        try:
            # One stands for all that are alike in this.
            alike = {(self._terms[name], it.is_forked, it.resources): it for name, it in self._agents.items()}
            for agent in alike.values():
                await self._rehearse(agent)
        except BaseException:
            await self.shut_down()
            raise

    async def shut_down(self) -> None:
        """End the driver, and with it every run there is."""
        await self._helper.close()
        self._lose_all()

    async def start(self, work: Work) -> "RayWorker":
        """Give a run a place. It may wait for that on the cluster, quietly. Raises WorkerError."""
        if not self._helper.is_there:
            raise WorkerError("the cluster is away")
        number = self._next()
        try:
            worker = RayWorker(work, kill=lambda: self._say(Kill(number)), give_up=self._give_up)
        except OSError as error:
            raise WorkerError(f"there are no descriptors for it: {error}") from error
        self._workers[number] = worker
        worker.on_exit(partial(self._workers.__delitem__, number))
        begin = Begin(number, self._agents[work.agent], self._terms[work.agent], self._import_timeout)
        try:
            self._helper.say(CODEC.written(begin), *worker.childs)
        except OSError as error:
            worker.ended(DIED)
            worker.discard()
            raise WorkerError(f"there are no descriptors for it: {error}") from error
        try:
            await worker.begin(work)
        except BaseException as error:
            worker.discard()
            if isinstance(error, OSError):
                raise WorkerError(DIED) from error
            raise
        return worker

    async def _start(self) -> None:
        await self._helper.start(CODEC.written(self._connect), BOOT, self._accept)

    def _accept(self, answer: bytes) -> None:
        try:
            told = CODEC.read(answer)
        except NonsenseError as error:
            raise HelperError(str(error)) from error
        if not isinstance(told, Connected):
            raise HelperError(told.error if isinstance(told, NotConnected) else "it says what nobody asked for")
        self._log.info("connected to the cluster", address=told.address, nodes=told.nodes)

    async def _rehearse(self, agent: Description) -> None:
        number = self._next()
        self._rehearsals[number] = answer = self._loop.create_future()
        self._say(Rehearse(number, agent, self._terms[agent.name], self._import_timeout))
        try:
            async with asyncio.timeout(BOOT + self._import_timeout):
                rehearsed = await answer
        except TimeoutError:
            rehearsed = Rehearsed(number, "", "it does not answer")
        if rehearsed.error:
            raise RegistryError(
                f"on the cluster, runs of {agent.name!r} get nowhere: {rehearsed.error}; what is here has to be on its "
                "nodes, too: installed there, or brought along by RUNWIRE_ENGINE_RAY_RUNTIME_ENV"
            )
        if not rehearsed.node:
            self._log.warning(
                "no node of the cluster has what an agent needs; its runs wait for one",
                agent=agent.name,
                resources={name: it for name, it in resources.read(agent.resources).items() if name != "runtime_env"},
            )

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _say(self, message: Rehearse | Kill) -> None:
        self._helper.say(CODEC.written(message))

    def _hear(self, data: bytes) -> None:
        if not data:
            self._lose_all()
            self._helper.keep_starting(self._start)
            return
        try:
            self._take_in(CODEC.read(data))
        except NonsenseError as error:
            self._log.error("the driver is not to be trusted: it is killed", error=str(error))
            self._helper.kill()

    def _take_in(self, message: object) -> None:
        match message:
            case Rehearsed(number) if (answer := self._rehearsals.pop(number, None)) and not answer.done():
                answer.set_result(message)
            case Placed(number, node) if worker := self._workers.get(number):
                worker.log("info", "placed on the cluster", node)
            case Logged(number, level, event, text) if worker := self._workers.get(number):
                worker.log(level, event, text)
            case Ended(number, how) if worker := self._workers.get(number):
                worker.ended(how[:MAX_HOW])
            case Rehearsed() | Placed() | Logged() | Ended():
                pass  # of one that has ended meanwhile
            case _:
                raise NonsenseError(f"{type(message).__name__}, which nobody expects")

    def _lose_all(self) -> None:
        for worker in tuple(self._workers.values()):
            worker.ended(DIED)
        for answer in self._rehearsals.values():
            if not answer.done():
                answer.set_result(Rehearsed(0, "", DIED))

    def _give_up(self) -> None:
        self._log.error("the driver does not answer: it is killed")
        self._helper.kill()


class RayWorker(ChannelWorker):
    """Where one run happens, or waits for its place."""

    def __init__(self, work: Work, *, kill: Callable[[], None], give_up: Callable[[], None]) -> None:
        super().__init__()
        self._kill = kill
        self._give_up = give_up
        self._log = structlog.get_logger().bind(**work.labels())
        self._left = 2 * MAX_OUTPUT
        self._patience: asyncio.TimerHandle | None = None

    @property
    def childs(self) -> tuple[int, ...]:
        """The other ends of the channel."""
        return self._channel.childs

    async def begin(self, work: Work) -> None:
        """Send the work. Raises OSError when there is nobody to take it."""
        self._channel.close_child_ends()
        await self._channel.begin(work)

    def kill(self) -> None:
        """End the agent, and what it started, at once."""
        if not self._exited.done() and self._patience is None:
            self._kill()
            self._patience = self._loop.call_later(PATIENCE, self._give_up)

    def ended(self, how: str) -> None:
        """Learn that nothing of the run is left."""
        if self._patience:
            self._patience.cancel()
        self._end(how)

    def log(self, level: str, event: str, text: str) -> None:
        """Log something of the run's, within bounds."""
        if self._left <= 0:
            return
        self._left -= LINE + len(text)
        getattr(self._log, level)(event[:MAX_HOW], text=text)
        if self._left <= 0:
            self._log.warning("agent said more than is logged", limit=2 * MAX_OUTPUT)

    def discard(self) -> None:
        """Let go of a worker that has no run."""
        self.kill()
        self._let_go()


def _terms(terms: Terms, agents: Mapping[str, Description], agent: Description) -> Terms:
    """Return what a node is to know for a run: of the agents there are, those of the same module that belong there."""
    ours = narrowed(terms, agents, "ray")
    module = _module(agent.source)
    return replace(
        ours,
        modules=tuple(source for source in ours.modules if _module(source) == module),
        apart=tuple(source for source in ours.apart if _module(source) == module),
        is_cluster=True,
        reload=False,
        user=None,
        upstreams=(),  # the broker is where the engine is
        broker="",
    )


def _module(source: str) -> str:
    """Return the module of what was named: `module`, `module:object` or `name=module:object`."""
    return source.rpartition("=")[2].partition(":")[0]
