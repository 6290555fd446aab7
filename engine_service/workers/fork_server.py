"""A zygote, as the engine sees it, with the children that wait for their run and those that have one."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import deque
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from engine_service.messages import NonsenseError
from engine_service.wire import (
    EXEC,
    FIRST,
    FORK,
    GRACE,
    LEASE,
    LEASED,
    MAX_MESSAGE,
    NANOSECONDS,
    Description,
    Exited,
    Forked,
    FrameSplitter,
    Imported,
    Importing,
    Jailed,
    JailTerms,
    NotForked,
    NotImported,
    Ready,
    RegistryError,
    Terms,
    Told,
    WarmingUp,
    Watched,
    Work,
    heard,
)
from engine_service.workers import WELL, Watcher, WorkerError
from engine_service.workers.cgroups import Cgroups
from engine_service.workers.demand import LEAST, Demand
from engine_service.workers.helper import home_of
from engine_service.workers.output import Output
from engine_service.workers.taken import PARENT
from engine_service.workers.worker import ProcessWorker

LULL = 0.02
"""Seconds after a run's begin until another waits in its stead."""
FORKS = 8
"""Forks that are asked for at once. More would only wait in the zygote's socket."""
AHEAD = FORKS // 2
"""Of these, forks of children that are to wait: runs that have none waiting come first."""
QUIET = 5.0
"""Seconds between two looks whether fewer would do."""
PATIENCE = 5.0
"""Seconds that a zygote may owe us a birth or an end without a word. Then it hangs, and is killed."""
REHEARSAL = 10.0
"""Seconds that the first run of a zygote's child may take."""
MOST_TOLD = 10_000
"""Agents, and files, that a zygote may tell of."""
ENDED = "-1"
"""What the kernel calls the process of a descriptor that has ended."""
OWN = "RUNWIRE_ENGINE_"
"""Settings of the engine, its secrets among them: not for agents."""
PLAIN = ("PATH", "TZ", "LANG", "LANGUAGE", "PYTHONPATH")
LANGUAGE = "LC_"
"""What a jail's environment has of the engine's. Where modules are is forgotten there, once it has been read."""


class Doing(NamedTuple):
    """What a zygote does at its boot, in words."""

    what: str
    done: str


class ForkServer:
    """Has one zygote, and gives out its children, one for each run."""

    def __init__(
        self, terms: Terms, import_timeout: float, cgroups: Cgroups | None, demand: Demand, watcher: Watcher
    ) -> None:
        self._demand = demand
        self._watcher = watcher
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger()
        self._terms = terms
        self._import_timeout = import_timeout
        self._cgroups = cgroups
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with ExitStack() as undo:
            undo.callback(self._control.close)
            with theirs:
                self._output = Output(self._log.bind(process="zygote"))
                undo.callback(self._output.close)
                self._zygote = self._exec(theirs, terms)
                undo.callback(self._zygote.wait)
                undo.callback(self._zygote.kill)
            self._output.close_child_ends()
            self._pidfd = os.pidfd_open(self._zygote.pid)
            undo.pop_all()
        self._turn = asyncio.Semaphore(FORKS)
        self._births = deque[tuple[ProcessWorker, asyncio.Future[None]]]()
        self._waiting = {FORK: deque[ProcessWorker](), EXEC: deque[ProcessWorker]()}
        self._workers: dict[int, ProcessWorker] = {}
        self._growing = {FORK: set[asyncio.Task[None]](), EXEC: set[asyncio.Task[None]]()}
        self._timer: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._shrinking: asyncio.TimerHandle | None = None
        self._retired = False
        self._until = 0.0
        self._doing = Doing("", "")
        self._ready: asyncio.Future[Ready | NotImported] = self._loop.create_future()
        self.died: asyncio.Future[None] = self._loop.create_future()
        """Done once the zygote is gone."""
        self._is_jailed = False
        self._door: int | None = None
        self.agents: dict[str, Description] = {}
        """What is known of each agent, by name."""
        self.files: tuple[str, ...] = ()
        """The files that an agents' author may change."""
        self._loop.add_reader(self._control, self._hear)
        # Its socket's end is not enough: a child that hangs right after its fork still holds the other end.
        self._loop.add_reader(self._pidfd, self._on_exit)

    def _exec(self, control: socket.socket, terms: Terms) -> subprocess.Popen[bytes]:
        """Start the zygote: with exec, since a process that has gRPC must not be forked."""
        module = "engine_service.runtime.zygote"
        # In a jail, the folder that the engine happens to be in is no place for modules: all beside them could be read.
        options = ["-P"] if terms.jail else []
        return subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, *options, "-m", module, str(control.fileno()), terms.encoded(), str(os.getpid())],
            pass_fds=(control.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=self._output.writer,
            stderr=self._output.writer,
            env=_jails_environ(terms.jail) if terms.jail else _environ() | home_of(terms.user),
            start_new_session=True,  # Ctrl-C in a terminal is for the engine alone
        )

    async def wait_ready(self) -> None:
        """Wait until the zygote has imported the agents. Raises RegistryError."""
        try:
            async with asyncio.timeout(self._import_timeout):
                answer = await self._ready
        except TimeoutError:
            raise RegistryError(
                f"{self._doing.what} is still not {self._doing.done} after {self._import_timeout:g} seconds; "
                "if that is how long it takes, set RUNWIRE_ENGINE_IMPORT_TIMEOUT"
            ) from None
        if isinstance(answer, NotImported):
            raise RegistryError(answer.error)
        if threads := answer.threads:
            self._log.warning("agents' modules start threads; no run will have them", threads=threads)
        if functions := answer.exits:
            self._log.info("exit functions of agents' modules run at the end of each run", functions=functions)
        if opened := answer.opened:
            self._log.info("agents' modules opened these; each run has them", opened=opened)
        if left := answer.left:
            self._log.warning("what warmed up left connections open; they are closed: no run can use them", left=left)

    def take_door(self) -> socket.socket | None:
        """Return what listens in the jail for the broker: whoever takes it has it."""
        door, self._door = self._door, None
        return None if door is None else socket.socket(fileno=door)

    async def begin(self) -> None:
        """Have children wait, once one of them got through a run: what cannot be forked is found now, not by users.

        Raises RegistryError.
        """
        for kind in {self._kind_of(agent) for agent in self.agents}:
            await self._rehearse(kind)
        self._grow()

    async def _rehearse(self, kind: bytes) -> None:
        how, worker = "", None
        splitter = FrameSplitter(self._terms.max_event_bytes)
        try:
            async with asyncio.timeout(REHEARSAL if kind == FORK else REHEARSAL + self._import_timeout):
                worker = await self._fork(kind)
                with suppress(OSError):  # it is dead already: its end says why
                    await worker.begin(FIRST)
                while splitter.last is None and (data := await worker.read()):
                    splitter.cut(data)
                how = await worker.close()
        except TimeoutError:
            how = "it hangs"
        except WorkerError as error:
            how = str(error)
        finally:
            if worker and not worker.is_closed:
                self._drop(worker)
        if how != WELL or splitter.last is None:
            if kind == EXEC:
                raise RegistryError(
                    f"a process that is started for agents with `fork = False` gets through no run: {how}"
                )
            raise RegistryError(
                "a process that is forked from the agents' modules gets through no run: "
                f"{how}; one of these modules cannot be forked: its agents need `fork = False`"
            )

    @property
    def pid(self) -> int:
        """The number of the zygote's process."""
        return self._zygote.pid

    @property
    def spares(self) -> int:
        """How many processes wait for runs."""
        return sum(map(len, self._waiting.values()))

    async def start(self, work: Work) -> ProcessWorker:
        """Give a run a process. Raises WorkerError."""
        kind = self._kind_of(work.agent)
        if kind == FORK:
            self._demand.take()
        while self._waiting[kind]:
            worker = self._waiting[kind].popleft()
            if await self._begin(worker, work):
                return worker
        worker = await self._fork(kind)
        if not await self._begin(worker, work):
            raise WorkerError("a process died before it had its run")
        return worker

    async def _begin(self, worker: ProcessWorker, work: Work) -> bool:
        """Give a process its run; False when it died while it waited."""
        self._grow_soon()
        if self._cgroups:
            self._cgroups.enclose(worker.pid, work.pays)
        if work.is_lasting and self._until:
            self._tell_lease(worker.pid)
        try:
            await worker.begin(work)
        except BaseException as error:
            self._drop(worker)
            if isinstance(error, OSError):
                return False
            raise
        return True

    def lease(self, until: float) -> None:
        """Have those runs that may be taken over end by then, whatever becomes of this process."""
        self._until = until
        self._tell_lease(0)

    def _tell_lease(self, pid: int) -> None:
        with suppress(OSError):  # it is dead, or so busy that it hears of the next one
            self._control.send(LEASE.pack(LEASED, pid, int(self._until * NANOSECONDS)))

    def retire(self) -> None:
        """Take no more runs, and end with the last that there is."""
        self._retired = True
        self._drop_waiting()
        self._end_if_empty()

    async def shut_down(self) -> None:
        """End the zygote, and with it every process there is. One that takes too long for that is killed."""
        self._retired = True
        if not self.died.done():
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            await asyncio.to_thread(self._zygote.wait, 2 * GRACE)
        except subprocess.TimeoutExpired:
            self._log.error("the zygote does not end: it is killed")
            self.kill()

    def kill(self) -> None:
        """End the zygote at once, and what its modules started at their import. Its children live on."""
        self._retired = True
        with suppress(ProcessLookupError):
            os.killpg(self._zygote.pid, signal.SIGKILL)
        self._zygote.wait()

    def _grow_soon(self) -> None:
        """Have children wait again, but not before the run that was just begun had the processors for itself."""
        if not self._timer or self._timer.when() <= self._loop.time():
            self._timer = self._loop.call_later(LULL, self._grow)

    def _grow(self) -> None:
        """Have children wait, as many as there should be."""
        afresh = any(not agent.is_forked for agent in self.agents.values())
        forked = any(agent.is_forked for agent in self.agents.values())
        for kind, wanted in ((FORK, self._demand.wanted if forked else 0), (EXEC, int(afresh))):
            growing = self._growing[kind]
            while not self._retired and len(growing) < AHEAD and len(self._waiting[kind]) + len(growing) < wanted:
                task = self._loop.create_task(self._add(kind))
                growing.add(task)
                task.add_done_callback(growing.discard)

    async def _add(self, kind: bytes) -> None:
        try:
            worker = await self._fork(kind)
        except WorkerError:
            return  # the next run will say so
        self._waiting[kind].append(worker)
        if self._retired:
            self.retire()
        else:
            self._grow_soon()
            self._shrink_later()

    def _shrink_later(self) -> None:
        if self._shrinking is None and len(self._waiting[FORK]) > LEAST:
            self._shrinking = self._loop.call_later(QUIET, self._shrink)

    def _shrink(self) -> None:
        """Let go of children that were lately not needed."""
        self._shrinking = None
        waiting = self._waiting[FORK]
        while len(waiting) > self._demand.wanted:
            self._drop(waiting.pop())
        self._shrink_later()

    def _kind_of(self, agent: str) -> bytes:
        """Return how an agent's processes come to be: forked, or started afresh."""
        return FORK if self.agents[agent].is_forked else EXEC

    async def _fork(self, kind: bytes) -> ProcessWorker:
        async with self._turn:
            if self._retired or self.died.done():
                raise WorkerError("the zygote is gone")
            try:
                worker = ProcessWorker()
            except OSError as error:
                raise WorkerError(f"there are no descriptors for it: {error}") from error
            birth: asyncio.Future[None] = self._loop.create_future()
            asked = self._loop.time()
            try:
                socket.send_fds(self._control, [kind], worker.childs)
                self._births.append((worker, birth))
                worker.close_child_ends()
                self._expect()
                await birth
            except BaseException as error:
                self._drop(worker)
                if isinstance(error, OSError | WorkerError):
                    self._watcher.not_born()
                if isinstance(error, OSError):
                    raise WorkerError(f"the zygote cannot be asked: {error}") from error
                raise
            self._watcher.born(self._loop.time() - asked)
            return worker

    def _expect(self) -> None:
        """Give the zygote time for what it owes us: births, and how those ended who are dead."""
        owed = self._births or any(worker.is_dead for worker in self._workers.values())
        if owed and self._patience is None and not self.died.done():
            self._patience = self._loop.call_later(PATIENCE, self._give_up)

    def _give_up(self) -> None:
        """Kill a zygote that owes an answer. It may have given one: after a pause of ours, timers are heard first."""
        try:
            if not self._receive():
                self._on_exit()
        except BlockingIOError:
            self._log.error("the zygote does not answer: it is killed")
            self.kill()

    def _hear(self) -> None:
        """Listen to the zygote: one message, and then it is others' turn."""
        with suppress(BlockingIOError):
            if not self._receive():
                self._on_exit()

    def _receive(self) -> bool:
        """Take in a message; False when there will be none any more. Raises BlockingIOError when there is none yet."""
        try:
            message, descriptors, *_ = socket.recv_fds(self._control, MAX_MESSAGE, 1)
        except BlockingIOError:
            raise
        except OSError:
            return False
        if not message:
            return False
        if self._patience:
            self._patience.cancel()
            self._patience = None
        try:
            self._take_in(heard(message), descriptors)
        except NonsenseError as error:
            self._log.error("the zygote is not to be trusted: it is killed", error=str(error))
            self.kill()
            return False
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._expect()
        return True

    def _take_in(self, message: Told, descriptors: list[int]) -> None:
        """Take in what is told of children, and before that of the boot. Raises NonsenseError."""
        match message:
            case Forked(pid):
                self._on_forked(pid, descriptors)
            case NotForked(error) if self._births:
                _fail(self._births.popleft()[1], f"the zygote cannot fork: {error}")
            case Exited(pid, status):
                self._on_exited(pid, status)
            case _ if not self._ready.done():
                self._boot(message, descriptors)
            case _:
                raise NonsenseError(f"{type(message).__name__}, which nobody expects")

    def _boot(self, message: Told, descriptors: list[int]) -> None:
        match message:
            case Importing(module):
                self._doing = Doing(f"the agents module {module!r}", "imported")
            case WarmingUp(agent):
                self._doing = Doing(f"the agent {agent!r}", "warmed up")
            case Imported(agent) if len(self.agents) < MOST_TOLD:
                self.agents[agent.name] = agent
            case Jailed(holds, missing) if self._terms.jail and not self._is_jailed:
                self._is_jailed = True
                counted = self._cgroups.layers if self._cgroups else []
                missing |= {} if counted else {"cgroups": "none was delegated"}
                self._log.info("the jail is closed", holds=[*holds, *counted], missing=missing)
                self._door = os.dup(descriptors[0]) if descriptors else None
            case Watched(file) if len(self.files) < MOST_TOLD:
                self.files += (file,)
            case Ready() | NotImported() as answer:
                self._ready.set_result(answer)
            case _:
                raise NonsenseError(f"{type(message).__name__}, once more")

    def _on_forked(self, pid: int, descriptors: list[int]) -> None:
        """Births come in the order they were asked for. Which process it is, is for the kernel to say."""
        if not self._births or pid in self._workers:
            raise NonsenseError("a birth that nobody asked for")
        try:
            is_child = bool(descriptors) and _is_child(pid, descriptors[0], self._zygote.pid)
            pidfd = os.dup(descriptors[0]) if is_child else -1
        except OSError:  # we have no room for the descriptor that names it
            descriptors, is_child, pidfd = [], False, -1
        if descriptors and not is_child:
            raise NonsenseError("a child that is none of the zygote's")
        worker, birth = self._births.popleft()
        if birth.done():  # whoever asked has left; the child sees its channel closed, and ends
            if is_child:
                os.close(pidfd)
        elif is_child:
            worker.born(pid, pidfd, self._expect)
            self._workers[pid] = worker
            birth.set_result(None)
        else:
            _fail(birth, "there are no descriptors for it")

    def _on_exited(self, pid: int, status: int) -> None:
        worker = self._workers.get(pid)
        if worker and not worker.has_ended():
            raise NonsenseError("the end of a process that lives")
        is_out_of_memory = self._cgroups is not None and self._cgroups.release(pid)
        if self._terms.jail is None and (folder := Path(self._terms.home, str(pid))).is_dir():
            self._loop.run_in_executor(None, partial(shutil.rmtree, folder, ignore_errors=True))
        if worker:
            del self._workers[pid]
            worker.exited(status, is_out_of_memory=is_out_of_memory)
        self._end_if_empty()

    def _drop(self, worker: ProcessWorker) -> None:
        if self._workers.get(worker.pid) is worker:
            del self._workers[worker.pid]
        worker.discard()

    def _why_it_died(self) -> str:
        status = self._zygote.poll()
        how = "" if status is None else f" with exit status {status}"
        where = f": {self._doing.what}, being {self._doing.done}, ended it{how}" if self._doing.what else how
        return f"the process that imports the agents died{where}"

    def _drop_waiting(self) -> None:
        for waiting in self._waiting.values():
            while waiting:
                self._drop(waiting.popleft())

    def _end_if_empty(self) -> None:
        if self._retired and not self._workers and not self._births and not self.died.done():
            self._control.shutdown(socket.SHUT_RDWR)

    def _on_exit(self) -> None:
        """Go on without the zygote: its children live, and their runs go on."""
        if self.died.done():
            return
        with suppress(BlockingIOError):
            while self._receive():  # what it said before it died, and nobody had the time to hear
                pass
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._loop.remove_reader(self._control)
        self._control.close()
        self._retired = True
        for timer in (self._patience, self._shrinking):
            if timer:
                timer.cancel()
        for _, birth in self._births:
            _fail(birth, "the zygote died")
        self._drop_waiting()
        for worker in tuple(self._workers.values()):
            worker.orphaned()
        if not self._ready.done():
            self._ready.set_result(NotImported(self._why_it_died()))
        self._output.close()
        if door := self.take_door():
            door.close()
        self.died.set_result(None)


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(OWN)}


def _jails_environ(jail: JailTerms) -> dict[str, str]:
    """Return an environment that holds nothing of the engine's: what a jail's zygote adds, it adds itself."""
    wanted = {*PLAIN, *jail.environ}
    return {name: value for name, value in _environ().items() if name in wanted or name.startswith(LANGUAGE)}


def _is_child(pid: int, pidfd: int, parent: int) -> bool:
    """Ask the kernel whether a descriptor is of this process, and it that one's child, if it has not ended yet."""
    about = dict(line.split(":\t", 1) for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines())
    if about.get("Pid") not in {str(pid), ENDED}:
        return False
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:  # it has ended, and is nobody's any more
        return True
    return int(status.rpartition(")")[2].split()[PARENT]) == parent


def _fail(birth: asyncio.Future[None], why: str) -> None:
    if not birth.done():
        birth.set_exception(WorkerError(why))
