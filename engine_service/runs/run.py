"""One run's life: started, numbered, ended once."""

import asyncio
from collections.abc import Callable

import structlog
from runwire.v1 import events_pb2 as pb

from engine_service.runs.outcome import Outcome, Verdict
from engine_service.wire import GRACE, Work
from engine_service.workers import KILLED, Worker, WorkerError, Workers

MAX_NOTES = 20
"""Tracebacks of one run that are logged."""

TIMED_OUT = pb.AgentFailed(reason=pb.FAILURE_REASON_TIMEOUT, message="The run took longer than it may.", retryable=True)
DRAINED = pb.AgentFailed(
    reason=pb.FAILURE_REASON_ENGINE_DRAINING, message="The engine is shutting down. Try again.", retryable=True
)
CANCELLED = pb.AgentCancelled(reason="Cancelled by its user.")


class Run:
    """One run. Whoever holds it calls `start` once, `next` until there is nothing more, and `close` in every case."""

    def __init__(self, work: Work, workers: Workers, *, max_event_bytes: int) -> None:
        self.work = work
        self.on_stop: Callable[[], None] = _nothing
        """Called when its end is decided from here: it is told to stop, or has broken its stream."""
        self._workers = workers
        self._outcome = Outcome(work.agent, max_event_bytes)
        self._worker: Worker | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Task[str] | None = None
        self._notes = MAX_NOTES
        self._log = structlog.get_logger().bind(**work.labels())

    async def start(self, seconds: float, grace: float = GRACE) -> None:
        """Begin, and end by oneself after so many seconds. Raises WorkerError, and then nothing has begun."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                self._worker = await self._workers.start(self.work)
        except TimeoutError as error:
            raise WorkerError("there was none in time") from error
        self._timer = loop.call_at(deadline, self.stop, TIMED_OUT, grace)
        self._log.info("run started")
        if self.is_stopped:
            self._worker.stop(grace)

    def stop(self, verdict: Verdict, grace: float = GRACE) -> None:
        """End the run, whatever its agent does. The first verdict stands, and is said as the terminal event."""
        if self._outcome.decide(verdict):
            if self._worker:
                self._worker.stop(grace)
            self.on_stop()

    async def next(self) -> bytes:
        """Wait for what happens, and return it as event frames; nothing once the terminal event was returned.

        Cancelling the wait loses nothing.
        """
        assert self._worker, "a run is started before it is read"  # noqa: S101 - for the reader, and mypy
        while not self.is_over:
            data = b"" if self._outcome.has_heard_all else await self._worker.read()
            events = self._take(self._worker, data)
            if events:
                return events
            if not data:
                if not self._outcome.has_heard_all:
                    self._worker.stop(0)  # it closed its channel: whatever it still does, nobody will hear of it
                return await self.finish()
        return b""

    async def finish(self) -> bytes:
        """Wait for the end of an agent that is told to stop, whatever it still says, and return the terminal event."""
        assert self._worker, "a run is started before it is ended"  # noqa: S101 - for the reader, and mypy
        how = await self._leave(self._worker)
        self._log.info("process ended", how=how)
        events = self._outcome.end(how)
        self._log_end()
        return events

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._outcome.is_decided

    @property
    def is_over(self) -> bool:
        """Whether the terminal event was returned."""
        return self._outcome.is_over

    @property
    def count(self) -> int:
        """The number of the newest event that was returned."""
        return self._outcome.count

    async def close(self) -> None:
        """Leave nothing behind. A run that is still going on is told to stop, since nobody listens any more."""
        if self._timer:
            self._timer.cancel()
        if self._worker:
            if not self.is_over:
                self._worker.stop(GRACE)
                self._log.info("run left by its caller", events=self.count)
                await self._leave(self._worker)
            elif await self._leave(self._worker) == KILLED and self._outcome.is_the_agents_own:
                # What took too long is what runs at its end, or threads that don't.
                self._log.warning("a process did not end in time: its exit functions are cut short", seconds=GRACE)

    async def _leave(self, worker: Worker) -> str:
        """Close the worker once, and wholly: whoever waits for it may be cancelled, but not before it is done."""
        if self._leaving is None:
            self._leaving = asyncio.create_task(worker.close())
        cancelled = None
        while not self._leaving.done():
            try:
                await asyncio.shield(self._leaving)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled:
            raise cancelled
        return self._leaving.result()

    def _take(self, worker: Worker, data: bytes) -> bytes:
        was_decided = self._outcome.is_decided
        events = self._outcome.take(data)
        for note in self._outcome.notes():
            if self._notes:
                self._notes -= 1
                self._log.error("agent failed", traceback=note)
        if self._outcome.broken and not was_decided:
            self._log.warning("agent broke its own stream", how=self._outcome.broken)
            worker.stop(0)
            self.on_stop()
        if self.is_over:
            self._log_end()
        return events

    def _log_end(self) -> None:
        event = self._outcome.ending
        assert event, "it has ended"  # noqa: S101 - for the reader, and mypy
        about: dict[str, str] = {}
        if event.HasField("agent_failed"):
            # Not its sentence: an agent's own is for its user alone, and an incident's is in the log by its id.
            about["reason"] = pb.FailureReason.Name(event.agent_failed.reason).removeprefix("FAILURE_REASON_").lower()
        self._log.info("run ended", ending=event.WhichOneof("kind"), events=event.seq, **about)


def _nothing() -> None:
    pass
