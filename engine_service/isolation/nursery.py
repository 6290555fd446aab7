"""A zygote, as the engine sees it, with the children that wait for their run and those that have one."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

import structlog

from engine_service.agent import Work
from engine_service.isolation import PlaceError
from engine_service.isolation.output import Output
from engine_service.isolation.place import ProcessPlace
from engine_service.isolation.zygote import FORK, MAX_MESSAGE, Terms
from engine_service.registry import RegistryError

WAITING = 4
"""Children that wait for their run. Each fork that is done ahead brings a first event 2 ms closer."""
LULL = 0.02
"""Seconds after a run's begin until its place among those that wait is filled again."""
FORKS = 8
"""Forks that are asked for at once. More would only wait in the zygote's socket."""
OWN = "RUNWIRE_ENGINE_"
"""Settings of the engine, its secrets among them: not for agents."""


class Nursery:
    """Has one zygote, and gives out its children, one for each run."""

    def __init__(self, terms: Terms) -> None:
        self._loop = asyncio.get_running_loop()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        self._output = Output(structlog.get_logger().bind(process="zygote"))
        with theirs:
            self._zygote = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "engine_service.isolation.zygote", str(theirs.fileno()), terms.encoded()],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._output.writer,
                stderr=self._output.writer,
                env={name: value for name, value in os.environ.items() if not name.startswith(OWN)},
                start_new_session=True,  # Ctrl-C in a terminal is for the engine alone
            )
        self._output.handed_over()
        self._turn = asyncio.Semaphore(FORKS)
        self._births = deque[asyncio.Future[tuple[int, int]]]()
        self._waiting = deque[ProcessPlace]()
        self._places: dict[int, ProcessPlace] = {}
        self._growing = set[asyncio.Task[None]]()
        self._timer: asyncio.TimerHandle | None = None
        self._retired = False
        self._introduced: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self.died: asyncio.Future[None] = self._loop.create_future()
        """Done once the zygote is gone."""
        self.agents: Mapping[str, dict[str, str]] = {}
        """What is known of each agent, by name."""
        self.files: tuple[str, ...] = ()
        """The files that an agents' author may change."""
        self._loop.add_reader(self._control, self._hear)

    async def introduce(self) -> None:
        """Wait until the zygote has imported the agents. Raises RegistryError when it cannot."""
        told = await self._introduced
        if "agents" not in told:
            await self.end()
            raise RegistryError(told.get("error", "the process that imports the agents died"))
        self.agents, self.files = told["agents"], tuple(told["files"])
        if told["threads"]:
            structlog.get_logger().warning(
                "agents' modules start threads; no run will have them", threads=told["threads"]
            )
        self._grow()

    async def start(self, work: Work) -> ProcessPlace:
        """Give a run a process. Raises PlaceError."""
        while self._waiting:
            place = self._waiting.popleft()
            try:
                await place.begin(work)
            except OSError:  # it died while it waited
                self._drop(place)
                continue
            self._grow_soon()
            return place
        place = await self._fork()
        self._grow_soon()
        try:
            await place.begin(work)
        except OSError as error:
            self._drop(place)
            raise PlaceError("a process died before it had its run") from error
        return place

    def retire(self) -> None:
        """Take no more runs, and end with the last that there is."""
        self._retired = True
        while self._waiting:
            self._drop(self._waiting.popleft())
        self._end_if_empty()

    async def end(self) -> None:
        """End the zygote, and with it every process there is."""
        self._retired = True
        if not self.died.done():
            self._control.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(self._zygote.wait)

    def _grow_soon(self) -> None:
        """Have children wait again, but not before the run that was just begun had the processors for itself."""
        if not self._timer or self._timer.when() <= self._loop.time():
            self._timer = self._loop.call_later(LULL, self._grow)

    def _grow(self) -> None:
        """Have children wait, as many as there should be."""
        while not self._retired and len(self._waiting) + len(self._growing) < WAITING:
            task = self._loop.create_task(self._add())
            self._growing.add(task)
            task.add_done_callback(self._growing.discard)

    async def _add(self) -> None:
        try:
            place = await self._fork()
        except PlaceError:
            return  # the next run will say so
        self._waiting.append(place)
        if self._retired:
            self.retire()

    async def _fork(self) -> ProcessPlace:
        async with self._turn:
            if self._retired or self.died.done():
                raise PlaceError("the zygote is gone")
            place = ProcessPlace()
            birth: asyncio.Future[tuple[int, int]] = self._loop.create_future()
            try:
                socket.send_fds(self._control, [FORK], [place.child_end.fileno(), place.output.writer])
                place.handed_over()
                self._births.append(birth)
                place.born(*await birth)
            except BaseException as error:
                place.discard()
                if isinstance(error, OSError):
                    raise PlaceError(f"the zygote cannot be asked: {error}") from error
                raise
            self._places[place.pid] = place
            return place

    def _hear(self) -> None:
        """Listen to the zygote."""
        try:
            message, descriptors, *_ = socket.recv_fds(self._control, MAX_MESSAGE, 1)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if not message:
            self._bury()
            return
        told: dict[str, Any] = json.loads(message)
        if "forked" in told:
            self._welcome(told["forked"], *descriptors)
        elif "failed" in told:
            birth = self._births.popleft()
            if not birth.done():
                birth.set_exception(PlaceError(f"the zygote cannot fork: {told['failed']}"))
        elif "exited" in told:
            if place := self._places.pop(told["exited"], None):
                place.exited(told["status"])
            self._end_if_empty()
        elif not self._introduced.done():
            self._introduced.set_result(told)

    def _welcome(self, pid: int, pidfd: int) -> None:
        birth = self._births.popleft()
        if birth.done():  # whoever asked has left; the child sees its channel closed, and ends
            os.close(pidfd)
        else:
            birth.set_result((pid, pidfd))

    def _drop(self, place: ProcessPlace) -> None:
        self._places.pop(place.pid, None)
        place.discard()

    def _end_if_empty(self) -> None:
        if self._retired and not self._places and not self.died.done():
            self._control.shutdown(socket.SHUT_RDWR)

    def _bury(self) -> None:
        """Go on without the zygote: its children live, and their runs go on."""
        self._loop.remove_reader(self._control)
        self._control.close()
        self._retired = True
        for birth in self._births:
            if not birth.done():
                birth.set_exception(PlaceError("the zygote died"))
        while self._waiting:
            self._drop(self._waiting.popleft())
        for place in self._places.values():
            place.orphaned()
        if not self._introduced.done():
            self._introduced.set_result({})
        self._output.close()
        self.died.set_result(None)
