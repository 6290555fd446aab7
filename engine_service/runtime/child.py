"""One run's process: it waits for its work, does it, and ends."""

import asyncio
import math
import os
import pickle
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

from engine_service.clock import Clock
from engine_service.runtime import trace
from engine_service.runtime.agent import Agent, AgentError, Shared, perform
from engine_service.runtime.credentials import Credentials
from engine_service.runtime.folder import Folder
from engine_service.runtime.inheritance import run_exit_functions
from engine_service.wire import GRACE, WORK, Terms, Words, Work

CLOSED = -1

PIECE = 64 * 1024
"""Bytes of what the engine says that are read at once."""
STACK = 1024 * 1024
"""Bytes of a thread's stack. The usual 8 MiB count as memory that a run may have, though nobody touches them."""

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What supervisors and terminals send to all processes at once. It is for the engine, which drains."""


def ignore_stops() -> None:
    """Do nothing when told to stop. Not SIG_IGN: a program that an agent starts would inherit that."""
    for number in STOPS:
        signal.signal(number, _ignore)


def _ignore(_: int, __: FrameType | None) -> None:
    pass


class Given(NamedTuple):
    """What a run is given, besides its work."""

    agents: Mapping[str, type[Agent]]
    terms: Terms
    credentials: Credentials
    folder: Folder


def live(work: int, events: int, given: Given, memory: int) -> NoReturn:
    """Do one run, with so much memory at most, and end the process, whatever the agent left behind."""
    status, ours = 1, os.getpid()
    worked = False
    try:
        _limit(memory, given.terms.seconds)
        # Not asyncio.run: it would wait for threads and tasks that the agent forgot. They end with the process.
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        worked = True
        worked = loop.run_until_complete(_live(work, events, given))
        status = 0
    except SystemExit as error:  # from a task of the agent's that nobody awaits
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - there is nobody to raise it to
        with suppress(BaseException):
            traceback.print_exc()
    finally:
        with suppress(BaseException):
            if worked and os.getpid() == ours:  # and not what the agent forked
                run_exit_functions()
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _limit(memory: int, seconds: float) -> None:
    """Set what the kernel watches over. It is a net below the engine's own: it holds even when nobody is left."""
    threading.stack_size(STACK)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cpu = math.ceil((seconds + GRACE) * (os.cpu_count() or 1)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))


def data() -> int:
    """Return the bytes that the kernel counts as this process's data.

    What the agents' modules take is there already, and shared: a run may have so much more.
    """
    with suppress(PermissionError):  # in a jail, a process that was started afresh may not look
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def _live(work: int, events: int, given: Given) -> bool:
    engine, sink = socket.socket(fileno=work), PipeSink(events)
    for side in (engine, sink):
        os.register_at_fork(after_in_child=side.close)  # whatever the agent forks is not this run
    return await do_run(engine, sink, given)


async def do_run(engine: socket.socket, sink: "PipeSink", given: Given) -> bool:
    """Wait for the work, and let the agent do it until it is done or told to stop. False when there was none."""
    engine.setblocking(False)
    words = Words()
    work = await _receive(engine, words)
    if work is None:
        return False
    is_rehearsal = not work.agent
    trace.tell(work.span)
    agents, terms, credentials, folder = given
    credentials.take(work.token)
    shared = Shared.of(work, sink, agents, terms, _set_alarm, is_alone=True, folder=folder)
    shared.brokered.catch_up = partial(_catch_up, engine, words, shared)
    _set_alarm(shared.clock)
    task = asyncio.create_task(perform(agents[work.agent], work.agent, work.input, shared))
    asyncio.get_running_loop().add_reader(engine, _hear, engine, words, task, shared)
    await asyncio.wait((task,))
    if not task.cancelled() and (error := task.exception()) and not isinstance(error, AgentError):
        raise error  # an AgentError has been told as an event
    await sink.drain()
    return not is_rehearsal  # what it says at its end is of no run


def _set_alarm(clock: Clock) -> None:
    """Let the kernel end a run whose time is long over."""
    signal.alarm(math.ceil(clock.end - time.monotonic() + 2 * GRACE))


async def _receive(engine: socket.socket, words: Words) -> Work | None:
    """Wait for the work; None if there will be none."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(engine, PIECE):
        for tag, body in words.feed(data):
            if tag == WORK:
                work: Work = pickle.loads(body)  # noqa: S301 - from the engine, through a socket that only it has
                return work
    return None


def _hear(engine: socket.socket, words: Words, task: asyncio.Task[str], shared: Shared) -> None:
    """Hear what the engine says during the run. The end of what it says means: stop."""
    with suppress(BlockingIOError):
        if data := engine.recv(PIECE):
            for tag, body in words.feed(data):
                shared.hear(tag, body)
        else:
            asyncio.get_running_loop().remove_reader(engine)
            shared.stop()
            task.cancel()


def _catch_up(engine: socket.socket, words: Words, shared: Shared) -> None:
    """Hear what has been said by now. That there will be no more is heard when it is its turn."""
    with suppress(OSError):
        while engine.recv(1, socket.MSG_PEEK):
            for tag, body in words.feed(engine.recv(PIECE)):
                shared.hear(tag, body)


class PipeSink:
    """The pipe to the engine. The kernel's buffer is the queue: while it is full, the agent waits."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._rest = b""
        self._taken = asyncio.Event()

    @property
    def drained(self) -> bool:
        """Whether the kernel has everything."""
        return not self._rest

    def write(self, frame: bytes) -> None:
        """Hand a frame to the kernel, and keep what it does not take."""
        with self._lock:
            waiting = bool(self._rest)
            self._rest = self._send(self._rest + frame if waiting else frame)
            if self._rest and not waiting:
                self._loop.call_soon_threadsafe(self._loop.add_writer, self._pipe, self._flush)

    async def drain(self) -> None:
        """Wait until the kernel has everything."""
        while self._rest:
            self._taken.clear()
            await self._taken.wait()

    def close(self) -> None:
        """Let go of the pipe. What is still written goes nowhere: its number may be another's."""
        pipe, self._pipe = self._pipe, CLOSED
        if pipe != CLOSED:
            os.close(pipe)

    def _flush(self) -> None:
        with self._lock:
            self._rest = self._send(self._rest)
            if not self._rest:
                self._loop.remove_writer(self._pipe)
                self._taken.set()

    def _send(self, data: bytes) -> bytes:
        if self._pipe == CLOSED:
            return b""
        try:
            sent = os.write(self._pipe, data)
            return data[sent:] if sent < len(data) else b""
        except BlockingIOError:
            return data
        except OSError:  # the engine is gone, and with it whoever would read this
            return b""
