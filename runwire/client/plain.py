"""The client for code without an event loop: the other one, in a thread with a loop of its own."""

import asyncio
import concurrent.futures
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from typing import Any, Self, TypeVar, Unpack

from runwire.client.client import Client, ClientOptions
from runwire.client.errors import RefusedError, closed
from runwire.client.events import AgentCompleted, AgentInfo, Event, RunInfo
from runwire.client.requests import RunOptions, Verdict
from runwire.client.run import Run

T = TypeVar("T")
MOMENT = 0.1
"""Seconds."""


class PlainRun:
    """One run: iterate it for its events. Whoever stops iterating leaves it, as with `Run`."""

    def __init__(self, client: "PlainClient", run: Run) -> None:
        self._client = client
        self._run = run

    @property
    def run_id(self) -> str:
        """The run's id; empty until it is known."""
        return self._run.run_id

    @property
    def seq(self) -> int:
        """The position of the last event that was given."""
        return self._run.seq

    def __iter__(self) -> Iterator[Event]:
        """Give its events. Raises RefusedError when it can't begin, and LostError when no more can be known of it."""
        batches = self._run.batches()

        async def following() -> list[Event]:
            return await anext(batches, list[Event]())

        try:
            while batch := self._client.wait(following()):
                yield from self._run.given(batch)
        finally:
            self._client.leave(batches)

    def answer(
        self, request_id: str, content: Mapping[str, Any] | None = None, *, outcome: Verdict = "accepted"
    ) -> None:
        """Answer one of its questions. Raises RefusedError."""
        self._client.wait(self._run.answer(request_id, content, outcome=outcome))

    def cancel(self) -> None:
        """Stop it. It still ends with its terminal event. Raises RefusedError."""
        self._client.wait(self._run.cancel())

    def result(self) -> AgentCompleted:
        """Read it to its end, and return what it completed with. Raises EndError when it failed, or was cancelled."""
        return self._client.wait(self._run.result())


class PlainClient:
    """As `Client`, and from any thread: each call returns when it is done."""

    def __init__(self, engines: str | Sequence[str] = "127.0.0.1:50051", **options: Unpack[ClientOptions]) -> None:
        async def made() -> Client:
            return Client(engines, **options)

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="runwire client", daemon=True)
        self._thread.start()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._whole: PlainClient | None = None
        self._leaving: asyncio.Task[None] | None = None
        weakref.finalize(self, _stop, self._loop)  # for whoever forgets to close it
        try:
            self._client = self.wait(made())
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def acting_for(self, user: str) -> Self:
        """Return a client whose runs are a user's. It shares this one's thread and connections, and ends with it."""
        acting = copy(self)
        acting._client, acting._whole = self._client.acting_for(user), self  # noqa: SLF001 - our own kind
        return acting

    def close(self) -> None:
        """End what is under way, and the thread. Runs with a `resume_window` go on for so long."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            ending = asyncio.run_coroutine_threadsafe(self._leave_all(), self._loop)
        ending.result()
        self._end()

    def run(self, agent: str, input: str = "", **options: Unpack[RunOptions]) -> PlainRun:
        """Run an agent. With a `resume_window` the run outlives lost connections, and is joined again."""
        return PlainRun(self, self._client.run(agent, input, **options))

    def resume(self, run_id: str, after_seq: int = 0) -> PlainRun:
        """Join a run again that was begun with a `resume_window`, after the last event that was seen."""
        return PlainRun(self, self._client.resume(run_id, after_seq))

    def answer(
        self, run_id: str, request_id: str, content: Mapping[str, Any] | None = None, *, outcome: Verdict = "accepted"
    ) -> None:
        """Answer a question of a run, whoever follows it. Raises RefusedError."""
        self.wait(self._client.answer(run_id, request_id, content, outcome=outcome))

    def cancel(self, run_id: str) -> None:
        """Stop a run, whoever follows it. Raises RefusedError."""
        self.wait(self._client.cancel(run_id))

    def agents(self) -> list[AgentInfo]:
        """List the agents there are. Raises RefusedError."""
        return self.wait(self._client.agents())

    def runs(self) -> list[RunInfo]:
        """List one's own runs, newest first: those that go on, and those that can be read. Raises RefusedError."""
        return self.wait(self._client.runs())

    def wait(self, doing: Coroutine[Any, Any, T]) -> T:
        """Wait for what happens in the thread. Whoever is interrupted meanwhile interrupts it. Raises RefusedError."""
        with self._lock:
            if self._closed.is_set():
                doing.close()
                raise closed()
            done = asyncio.run_coroutine_threadsafe(doing, self._loop)
        try:
            return done.result()
        except concurrent.futures.CancelledError:
            raise closed() from None
        finally:
            done.cancel()

    def leave(self, batches: AsyncGenerator[list[Event]]) -> None:
        """Leave a run, from whichever thread: what was forgotten is collected in any, this loop's own among them."""
        if threading.current_thread() is self._thread:
            self._leaving = self._loop.create_task(_ended(batches))
            return
        with suppress(RefusedError):
            self.wait(_ended(batches))

    async def _leave_all(self) -> None:
        await self._client.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    def _end(self) -> None:
        _stop(self._loop)
        self._thread.join()


async def _ended(batches: AsyncGenerator[list[Event]]) -> None:
    await batches.aclose()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    # gRPC tells a loop of its calls' ends a moment later; of one that is closed it would complain in another thread.
    loop.run_until_complete(asyncio.sleep(MOMENT))
    loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    with suppress(RuntimeError):  # it has ended
        loop.call_soon_threadsafe(loop.stop)
