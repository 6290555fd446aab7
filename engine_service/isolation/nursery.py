"""A zygote, as the engine sees it, with the children that wait for their run and those that have one."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
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
        try:
            self._zygote = self._exec(theirs, terms)
        except OSError:
            self._control.close()
            self._output.close()
            raise
        finally:
            theirs.close()
            self._output.handed_over()
        self._turn = asyncio.Semaphore(FORKS)
        self._births = deque[tuple[ProcessPlace, asyncio.Future[None]]]()
        self._waiting = deque[ProcessPlace]()
        self._places: dict[int, ProcessPlace] = {}
        self._growing = set[asyncio.Task[None]]()
        self._timer: asyncio.TimerHandle | None = None
        self._retired = False
        self._introduced: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self.died: asyncio.Future[None] = self._loop.create_future()
        """Done once the zygote is gone."""
        self.agents: dict[str, dict[str, str]] = {}
        """What is known of each agent, by name."""
        self.files: tuple[str, ...] = ()
        """The files that an agents' author may change."""
        self._loop.add_reader(self._control, self._hear)

    def _exec(self, control: socket.socket, terms: Terms) -> subprocess.Popen[bytes]:
        """Start the zygote: with exec, since a process that has gRPC must not be forked."""
        return subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "engine_service.isolation.zygote", str(control.fileno()), terms.encoded()],
            pass_fds=(control.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=self._output.writer,
            stderr=self._output.writer,
            env={name: value for name, value in os.environ.items() if not name.startswith(OWN)},
            start_new_session=True,  # Ctrl-C in a terminal is for the engine alone
        )

    async def introduce(self) -> None:
        """Wait until the zygote has imported the agents. Raises RegistryError when it cannot."""
        told = await self._introduced
        if told.get("say") != "ready":
            await self.end()
            raise RegistryError(told.get("error", "the process that imports the agents died"))
        if told["threads"]:
            structlog.get_logger().warning(
                "agents' modules start threads; no run will have them", threads=told["threads"]
            )
        self._grow()

    async def start(self, work: Work) -> ProcessPlace:
        """Give a run a process. Raises PlaceError."""
        while self._waiting:
            place = self._waiting.popleft()
            if await self._begin(place, work):
                return place
        place = await self._fork()
        if not await self._begin(place, work):
            raise PlaceError("a process died before it had its run")
        return place

    async def _begin(self, place: ProcessPlace, work: Work) -> bool:
        """Give a process its run; False when it died while it waited."""
        self._grow_soon()
        try:
            await place.begin(work)
        except BaseException as error:
            self._drop(place)
            if isinstance(error, OSError):
                return False
            raise
        return True

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
            try:
                place = ProcessPlace()
            except OSError as error:
                raise PlaceError(f"there are no descriptors for it: {error}") from error
            birth: asyncio.Future[None] = self._loop.create_future()
            try:
                socket.send_fds(self._control, [FORK], place.childs)
                self._births.append((place, birth))
                place.handed_over()
                await birth
            except BaseException as error:
                self._drop(place)
                if isinstance(error, OSError):
                    raise PlaceError(f"the zygote cannot be asked: {error}") from error
                raise
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
        hear: dict[str, Callable[..., None]] = {
            "agent": self._meet,
            "file": self._watch,
            "ready": self._introduce,
            "error": self._introduce,
            "forked": self._welcome,
            "failed": self._regret,
            "exited": self._mourn,
        }
        hear[told["say"]](told, descriptors)

    def _meet(self, told: dict[str, Any], _: list[int]) -> None:
        self.agents[told["agent"]["name"]] = told["agent"]

    def _watch(self, told: dict[str, Any], _: list[int]) -> None:
        self.files += (told["file"],)

    def _introduce(self, told: dict[str, Any], _: list[int]) -> None:
        self._introduced.set_result(told)

    def _welcome(self, told: dict[str, Any], descriptors: list[int]) -> None:
        """Hear of a birth. Births come in the order they were asked for."""
        place, birth = self._births.popleft()
        if birth.done():  # whoever asked has left; the child sees its channel closed, and ends
            for descriptor in descriptors:
                os.close(descriptor)
        elif descriptors:
            place.born(told["pid"], *descriptors)
            self._places[place.pid] = place
            birth.set_result(None)
        else:  # we had no room for the descriptor that names it
            _disappoint(birth, "there are no descriptors for it")

    def _regret(self, told: dict[str, Any], _: list[int]) -> None:
        birth = self._births.popleft()[1]
        _disappoint(birth, f"the zygote cannot fork: {told['error']}")

    def _mourn(self, told: dict[str, Any], _: list[int]) -> None:
        if place := self._places.pop(told["pid"], None):
            place.exited(told["status"])
        self._end_if_empty()

    def _drop(self, place: ProcessPlace) -> None:
        if self._places.get(place.pid) is place:
            del self._places[place.pid]
        place.discard()

    def _end_if_empty(self) -> None:
        if self._retired and not self._places and not self.died.done():
            self._control.shutdown(socket.SHUT_RDWR)

    def _bury(self) -> None:
        """Go on without the zygote: its children live, and their runs go on."""
        self._loop.remove_reader(self._control)
        self._control.close()
        self._retired = True
        for _, birth in self._births:
            _disappoint(birth, "the zygote died")
        while self._waiting:
            self._drop(self._waiting.popleft())
        for place in self._places.values():
            place.orphaned()
        if not self._introduced.done():
            self._introduced.set_result({})
        self._output.close()
        self.died.set_result(None)


def _disappoint(birth: asyncio.Future[None], why: str) -> None:
    if not birth.done():
        birth.set_exception(PlaceError(why))
