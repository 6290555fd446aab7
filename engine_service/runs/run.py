"""One run's life: started, numbered, ended once."""

import asyncio
import datetime
from collections.abc import Callable
from typing import NamedTuple

import structlog
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import RunInfo

from engine_service.clock import Clock
from engine_service.runs.follower import Follower, Followers
from engine_service.runs.outcome import Outcome, Verdict
from engine_service.runs.questions import QuestionError, Questions
from engine_service.wire import (
    ANSWER,
    ASKED,
    CHECKPOINT,
    GRACE,
    SAVED,
    WITHDRAWN,
    Checkpoint,
    Work,
    events_in,
    word_of,
)
from engine_service.workers import KILLED, Worker, WorkerError, Workers

MAX_NOTES = 20
"""Tracebacks of one run that are logged."""

MAX_TOLD = 200
"""Lines about questions of one run that are logged."""

MUCH, PAUSE = 4 * 1024, 0.05
"""Bytes without an event, after which a run is not read for a moment, and that moment in seconds."""

TIMED_OUT = pb.AgentFailed(reason=pb.FAILURE_REASON_TIMEOUT, message="The run took longer than it may.", retryable=True)
DRAINED = pb.AgentFailed(
    reason=pb.FAILURE_REASON_ENGINE_DRAINING, message="The engine is shutting down. Try again.", retryable=True
)
LOST = pb.AgentFailed(
    reason=pb.FAILURE_REASON_ENGINE_LOST, message="The engine that had the run is gone. Try again.", retryable=True
)
CANCELLED = pb.AgentCancelled(reason="Cancelled by its user.")


NOBODY = Followers()


class Patience(NamedTuple):
    """How long a caller waits for a run, and how long its end may take then."""

    seconds: float
    grace: float


class Run:
    """One run. Whoever holds it calls `start` once, `next` until there is nothing more, and `close` in every case."""

    def __init__(
        self,
        work: Work,
        workers: Workers,
        *,
        max_event_bytes: int,
        survives: bool = True,
        follower: Follower = NOBODY,
    ) -> None:
        self.work = work
        self._follower = follower
        self.survives = survives
        """Whether another engine may go on with it."""
        self.on_stop: Callable[[], None] = _nothing
        """Called when its end is decided from here: it is told to stop, or has broken its stream."""
        self.on_checkpoint: Callable[[Checkpoint, float], None] = self._saved_nowhere
        """Called when its agent saves what it would go on from, with the time that it has left then."""
        self.is_abandoned = False
        """Whether it ends here without a word, since it goes on elsewhere."""
        self._workers = workers
        self._outcome = Outcome(work.agent, max_event_bytes, work.recovery)
        self._worker: Worker | None = None
        self._clock = Clock(0, 0)
        self._says_it_waits = False
        self._timer: asyncio.TimerHandle | None = None
        self._callers_timer: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Task[str] | None = None
        self._notes = MAX_NOTES
        self._told = MAX_TOLD
        self._started = work.started or datetime.datetime.now(datetime.UTC)
        before = events_in(work.recovery.open) if work.recovery else ()
        asked = (event.input_requested.request_id for event in before if event.HasField("input_requested"))
        self.questions = Questions(self._tell, asked)
        """What the agent asks its user."""
        self._log = structlog.get_logger().bind(**work.labels())

    async def start(self, seconds: float, patience: Patience | None = None) -> None:
        """Begin, and end by oneself after so many seconds, or when the caller's patience ends.

        Raises WorkerError, and then nothing has begun.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._clock = Clock(seconds, now)
        try:
            async with asyncio.timeout_at(now + min(seconds, patience.seconds if patience else seconds)):
                self._worker = await self._workers.start(self.work)
        except TimeoutError as error:
            raise WorkerError("there was none in time") from error
        self._timer = loop.call_at(self._clock.end, self.stop, TIMED_OUT)
        if patience:
            self._callers_timer = loop.call_at(now + patience.seconds, self._lose_patience, patience.grace)
        again = {"attempt": self.work.recovery.attempt} if self.work.recovery else {}
        self._log.info("run started", **again)
        self._follower.began()
        if self.is_stopped:
            self._worker.stop(patience.grace if patience else GRACE)

    def stop(self, verdict: Verdict, grace: float = GRACE) -> None:
        """End the run, whatever its agent does. The first verdict stands, and is said as the terminal event."""
        if self._outcome.decide(verdict):
            if self._worker:
                self._worker.stop(grace)
            self.questions.close()
            self.on_stop()

    def abandon(self) -> bool:
        """End it without a word; False where its end is decided already."""
        if self.is_stopped or self.is_over:
            return False
        self.is_abandoned = True
        self.stop(LOST, grace=0)
        return True

    @property
    def service(self) -> str:
        """Who began it for its user, if that wasn't they themselves."""
        return self.work.service

    @property
    def is_waiting(self) -> bool:
        """Whether it does nothing but wait for its user."""
        return bool(self._says_it_waits and self.questions.open)

    @property
    def pid(self) -> int | None:
        """The number of its process, if it has one of its own."""
        return self._worker.pid if self._worker else None

    @property
    def left(self) -> float:
        """How much time it has left."""
        return self._clock.left(asyncio.get_running_loop().time())

    def saved(self, number: int) -> None:
        """Hear that a checkpoint is where it survives this engine."""
        if self._worker and not self.is_stopped:
            self._worker.tell(SAVED, b"%d" % number)

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
            # One who says nothing but what is for us alone, and much of it, is not to keep others waiting.
            await asyncio.sleep(PAUSE if len(data) > MUCH else 0)
            if not data:
                if not self._outcome.has_heard_all:
                    self._worker.stop(0)  # it closed its channel: whatever it still does, nobody will hear of it
                return await self.finish()
        return b""

    async def finish(self) -> bytes:
        """Wait for the end of an agent that is told to stop, whatever it still says, and return the terminal event."""
        assert self._worker, "a run is started before it is ended"  # noqa: S101 - for the reader, and mypy
        how = await self._leave(self._worker)
        if not self.is_abandoned:
            self._log.info("process ended", how=how)
        events = self._outcome.end(how)
        if not self.is_abandoned:
            self._follower.said(events, 1)
        self._end()
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

    def info(self) -> RunInfo:
        """Say what there is to know about it."""
        info = RunInfo(
            run_id=self.work.run_id,
            agent=self.work.agent,
            service=self.work.service,
            thread_id=self.work.thread_id,
            last_seq=self.count,
            questions=self.questions.open,
            is_over=self.is_over,
        )
        info.started.FromDatetime(self._started)
        return info

    async def close(self) -> None:
        """Leave nothing behind. A run that is still going on is told to stop, since nobody listens any more."""
        for timer in (self._timer, self._callers_timer):
            if timer:
                timer.cancel()
        self.questions.close()
        if self._worker:
            if not self.is_over:
                self._worker.stop(GRACE)
                self._log.info("run left by its caller", events=self.count)
                self._follower.left("left", self._outcome.usage)
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
        was_decided, before = self._outcome.is_decided, self.count
        events = self._outcome.take(data)
        if events:
            self._follower.said(events, self.count - before)
        for note in self._outcome.notes():
            if self._notes:
                self._notes -= 1
                self._log.error("agent failed", traceback=note)
        try:
            self._hear(self._outcome.heard())
        except QuestionError as error:
            self._outcome.break_off(str(error))
        if self._outcome.broken and not was_decided:
            self._log.warning("agent broke its own stream", how=self._outcome.broken)
            worker.stop(0)
            self.questions.close()
            self.on_stop()
        if self.is_over:
            self._end()
        return events

    def _hear(self, heard: list[tuple[int, bytes]]) -> None:
        """Hear what the agent asks its user, whether it waits for that, and what it saves. Raises QuestionError."""
        if self.is_stopped or self.is_over:
            return  # nothing is answered any more
        for tag, body in heard:
            if tag == ASKED:
                self.questions.ask(body)
                self._tell_log("question asked", open=len(self.questions.open))
            elif tag == WITHDRAWN:
                self.questions.withdraw(body)
            elif tag == CHECKPOINT:
                self._save(body)
            else:
                self._says_it_waits = bool(body)
        self._keep_time()

    def _save(self, body: bytes) -> None:
        """Have saved what the agent would go on from."""
        checkpoint = Checkpoint.read(body)
        if checkpoint is None or checkpoint.seq > self.count:
            self._outcome.break_off("what is no checkpoint")
        else:
            self.on_checkpoint(checkpoint, self.left)

    def _saved_nowhere(self, checkpoint: Checkpoint, _: float) -> None:
        """Hear of a checkpoint of a run that ends with its engine: there is nothing to wait for."""
        self.saved(checkpoint.number)

    def _lose_patience(self, grace: float) -> None:
        """Hear that the caller waits no longer, be the run told to stop already or not."""
        self.stop(TIMED_OUT, grace)
        if self._worker and not self.is_over:
            self._worker.stop(grace)

    def _tell(self, answered: pb.InputAnswered) -> None:
        """Tell the agent how a question was settled."""
        assert self._worker, "somebody asked"  # noqa: S101 - for the reader, and mypy
        self._worker.tell(ANSWER, answered.SerializeToString())
        self._tell_log("question settled", outcome=word_of(pb.InputOutcome, answered.outcome))
        self._keep_time()

    def _tell_log(self, event: str, **about: object) -> None:
        """Log something of a question; of one run, so often and no more."""
        if self._told:
            self._told -= 1
            self._log.info(event, **about)

    def _keep_time(self) -> None:
        """Let the run's time stand still while it waits for its user, and does nothing else."""
        loop = asyncio.get_running_loop()
        if self.is_waiting:
            self._clock.stand_still(loop.time())
        else:
            self._clock.go_on(loop.time())
        if self._timer and self._timer.when() != self._clock.end:
            self._timer.cancel()
            self._timer = loop.call_at(self._clock.end, self.stop, TIMED_OUT)

    def _end(self) -> None:
        """See that it has ended."""
        self.questions.close()
        if self.is_abandoned:
            self._log.info("run handed over", events=self.count - 1)
            self._follower.left("handed_over")
            return
        event = self._outcome.ending
        assert event, "it has ended"  # noqa: S101 - for the reader, and mypy
        about: dict[str, str] = {}
        if event.HasField("agent_failed"):
            # Not its sentence: an agent's own is for its user alone, and an incident's is in the log by its id.
            about["reason"] = word_of(pb.FailureReason, event.agent_failed.reason)
        self._log.info("run ended", ending=event.WhichOneof("kind"), events=event.seq, **about)
        self._follower.ended(event)


def _nothing() -> None:
    pass
