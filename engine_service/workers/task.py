"""A run as a task of the engine's own loop, for agents that only wait for the network and promise never to block."""

import asyncio
import contextvars
import os
import threading
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any

from structlog.contextvars import bind_contextvars

from engine_service.runtime import trace
from engine_service.runtime.agent import Agent, AgentError, Shared, perform
from engine_service.wire import GRACE, Terms, Work
from engine_service.workers import sooner

BOUND = 64 * 1024
"""Bytes that a pipe holds before its writer waits."""


class TaskWorkers:
    """Gives every run a task, in a contextvars context of its own."""

    def __init__(self, agents: Mapping[str, type[Agent]], terms: Terms) -> None:
        if terms.assistant_model:
            os.environ["ASSISTANT_MODEL"] = terms.assistant_model
        self._agents = agents
        self._terms = terms
        self._worker = contextvars.ContextVar[TaskWorker]("worker")
        asyncio.get_running_loop().set_task_factory(self._new_task)

    async def start(self, work: Work) -> "TaskWorker":
        """Start an agent."""
        worker = TaskWorker()
        shared = Shared.of(work, worker.pipe, self._agents, self._terms, is_alone=False)
        context = contextvars.Context()
        context.run(self._worker.set, worker)
        context.run(bind_contextvars, **work.labels())  # what libraries log is told as this run's
        context.run(trace.enter, work.span)
        worker.begin(self._perform(work, shared), shared, context)
        return worker

    async def _perform(self, work: Work, shared: Shared) -> None:
        try:
            with suppress(AgentError):  # its terminal event has been said
                await perform(self._agents[work.agent], work.agent, work.input, shared)
        finally:
            shared.folder.close()

    def _new_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Make a task, and remember whose it is: what an agent starts and forgets ends with its run."""
        worker = self._worker.get(None)
        if worker is None:
            return asyncio.Task(coro, loop=loop, **options)
        task = asyncio.Task(_contained(coro), loop=loop, **options)
        worker.strays.add(task)
        task.add_done_callback(worker.strays.discard)
        return task


async def _contained(coro: Any) -> Any:
    """Keep an agent's wish to end its process to itself: asyncio would let it end the engine's loop."""
    try:
        return await coro
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError("a task of the agent's wanted to end the process") from error


class TaskWorker:
    """Where one run happens: its task, the tasks that its agent started, and the pipe its events come through."""

    pid = 0

    def __init__(self) -> None:
        self.pipe = Pipe()
        self.strays = set[asyncio.Task[Any]]()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._shared: Shared | None = None

    def begin(self, performance: Coroutine[Any, Any, None], shared: Shared, context: contextvars.Context) -> None:
        """Start the agent."""
        self._shared = shared
        self._task = asyncio.get_running_loop().create_task(performance, context=context)
        self._task.add_done_callback(lambda _: self.pipe.close())

    async def read(self) -> bytes:
        """Wait for frames and return what is there; nothing once there will be no more."""
        return await self.pipe.read()

    def tell(self, tag: int, body: bytes) -> None:
        """Tell the agent's side a word."""
        if self._shared:
            self._shared.hear(tag, body)

    def stop(self, grace: float) -> None:
        """Cancel the agent. One that resists is given up after `grace` seconds: a task cannot be killed."""
        if self._task and self._shared and not self._timer:
            self._shared.stop()
            self._task.cancel()
        self._timer = sooner(self._timer, asyncio.get_running_loop().call_later(grace, self.pipe.close))

    async def close(self) -> str:
        """Cancel whatever of the run is left, and wait for its end, but not for ever. What it still says is dropped."""
        if self._timer is None:
            self.stop(GRACE)
        dropping = asyncio.create_task(self._drop())  # an agent that cleans up is not to wait for a reader
        for stray in self.strays:
            stray.cancel()
        if tasks := {task for task in (self._task, *self.strays) if task and not task.done()}:
            await asyncio.wait(tasks, timeout=GRACE)
        self.pipe.close()
        await asyncio.wait((dropping,))
        if self._timer:
            self._timer.cancel()
        return _how(self._task)

    async def _drop(self) -> None:
        while await self.read():
            pass


def _how(task: asyncio.Task[None] | None) -> str:
    return "its task ended" if task is None or task.done() else "its task ignores that it was cancelled"


class Pipe:
    """Frames on their way from a task to its run: bounded, and closed by whoever ends first."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._closed = False

    @property
    def drained(self) -> bool:
        """Whether the writer may go on."""
        return len(self._buffer) < BOUND and not self._closed

    def write(self, frame: bytes) -> None:
        """Take a frame."""
        if not self._closed:
            with self._lock:
                self._buffer += frame
            if threading.get_ident() == self._thread:
                self._readable.set()
            else:
                self._loop.call_soon_threadsafe(self._readable.set)

    async def drain(self) -> None:
        """Wait until there is room.

        A closed pipe is an error, and not another cancellation: whoever is here has resisted that already.
        """
        while len(self._buffer) >= BOUND and not self._closed:
            self._writable.clear()
            await self._writable.wait()
        if self._closed:
            raise RuntimeError("the run has ended: nobody listens any more")

    async def read(self) -> bytes:
        """Wait for frames and take them; nothing once the pipe is closed and empty."""
        while not self._buffer and not self._closed:  # a thread's frame may be taken before we hear of it
            self._readable.clear()
            await self._readable.wait()
        with self._lock:  # against an agent's threads
            data = bytes(self._buffer)
            self._buffer.clear()
        self._writable.set()
        return data

    def close(self) -> None:
        """End the pipe. What is in it can still be read."""
        self._closed = True
        self._readable.set()
        self._writable.set()
