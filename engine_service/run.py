"""One run's life: started, numbered, ended once."""

import asyncio
from collections.abc import Callable

import structlog
from google.protobuf.message import DecodeError
from runwire.v1 import events_pb2 as pb

from engine_service.agent import Work
from engine_service.events import EVENT, Cutter, event_frame, frame, stamp
from engine_service.isolation import GRACE, OUT_OF_MEMORY, Isolation, Place, PlaceError

MAX_NOTES = 20
"""Tracebacks of one run that are logged."""

TERMINAL = {"agent_completed", "agent_failed", "agent_cancelled"}

Verdict = pb.AgentFailed | pb.AgentCancelled
"""How a run ends that does not end by itself."""

TIMED_OUT = pb.AgentFailed(reason=pb.FAILURE_REASON_TIMEOUT, message="The run took longer than it may.", retryable=True)
DRAINED = pb.AgentFailed(
    reason=pb.FAILURE_REASON_ENGINE_DRAINING, message="The engine is shutting down. Try again.", retryable=True
)
CANCELLED = pb.AgentCancelled(reason="Cancelled by its user.")


class Run:
    """One run. Whoever holds it calls `start` once, `next` until there is nothing more, and `close` in every case."""

    def __init__(self, work: Work, isolation: Isolation, *, max_event_bytes: int) -> None:
        self.work = work
        self.on_stop: Callable[[], None] = _nothing
        """Called when it is told to stop."""
        self._isolation = isolation
        self._cutter = Cutter(max_event_bytes)
        self._place: Place | None = None
        self._verdict: Verdict | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._over = False
        self._leaving: asyncio.Task[str] | None = None
        self._notes = MAX_NOTES
        self._log = structlog.get_logger().bind(**work.labels())

    async def start(self, seconds: float, grace: float = GRACE) -> None:
        """Begin, and end by oneself after so many seconds. Raises PlaceError, and then nothing has begun."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        try:
            async with asyncio.timeout_at(end):
                self._place = await self._isolation.start(self.work)
        except TimeoutError as error:
            raise PlaceError("there was none in time") from error
        self._timer = loop.call_at(end, self.stop, TIMED_OUT, grace)
        self._log.info("run started")
        if self._verdict:
            self._place.stop(grace)

    def stop(self, verdict: Verdict, grace: float = GRACE) -> None:
        """End the run, whatever its agent does. The first verdict stands, and is said as the terminal event."""
        if self._verdict is None and not self._over:
            self._verdict = verdict
            if self._place:
                self._place.stop(grace)
            self.on_stop()

    async def next(self) -> bytes:
        """Wait for what happens, and return it as event frames; nothing once the terminal event was returned.

        Cancelling the wait loses nothing.
        """
        assert self._place, "a run is started before it is read"  # noqa: S101 - for the reader, and mypy
        while not self._over:
            data = await self._place.read() if self._cutter.last is None else b""
            events = self._cut(data)
            last = self._cutter.last
            if last is not None and self._verdict is None:
                if event := self._terminal(last):
                    return events + self._end(event, frame(EVENT, last))
                self._break_off("a terminal event that is none")
            if events:
                return events
            if not data:
                if last is None:
                    self._place.stop(0)  # it closed its channel: whatever it still does, nobody will hear of it
                return await self.finish()
        return b""

    async def finish(self) -> bytes:
        """Wait for the end of an agent that is told to stop, whatever it still says, and return the terminal event."""
        assert self._place, "a run is started before it is ended"  # noqa: S101 - for the reader, and mypy
        how = await self._leave(self._place)
        verdict = self._verdict or _ended(how)
        event = stamp(pb.Event(seq=self.count + 1, agent=self.work.agent))
        if isinstance(verdict, pb.AgentFailed):
            event.agent_failed.CopyFrom(verdict)
        else:
            event.agent_cancelled.CopyFrom(verdict)
        self._log.info("process ended", how=how)
        return self._end(event, event_frame(event))

    @property
    def is_stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._verdict is not None

    @property
    def is_over(self) -> bool:
        """Whether the terminal event was returned."""
        return self._over

    @property
    def count(self) -> int:
        """The number of the newest event that was returned."""
        return self._cutter.count + self._over

    async def close(self) -> None:
        """Leave nothing behind. A run that is still going on is told to stop, since nobody listens any more."""
        if self._timer:
            self._timer.cancel()
        if self._place:
            if not self._over:
                self._place.stop(GRACE)
                self._log.info("run left by its caller", events=self._cutter.count)
            await self._leave(self._place)

    async def _leave(self, place: Place) -> str:
        """Close the place once, and wholly: whoever waits for it may be cancelled, but not before it is done."""
        if self._leaving is None:
            self._leaving = asyncio.create_task(place.close())
        cancelled = None
        while not self._leaving.done():
            try:
                await asyncio.shield(self._leaving)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled:
            raise cancelled
        return self._leaving.result()

    def _cut(self, data: bytes) -> bytes:
        events = self._cutter.cut(data)
        if self._cutter.broken and self._verdict is None:
            self._break_off(self._cutter.broken)
        for note in self._cutter.notes[: self._notes]:
            self._log.error("agent failed", traceback=note)
        self._notes -= min(self._notes, len(self._cutter.notes))
        self._cutter.notes.clear()
        return events

    def _terminal(self, body: bytes) -> pb.Event | None:
        """Read the terminal event; None if it isn't one."""
        try:
            event = pb.Event.FromString(body)
        except DecodeError:
            return None
        is_next = (event.seq, event.agent) == (self._cutter.count + 1, self.work.agent)
        return event if is_next and event.WhichOneof("kind") in TERMINAL else None

    def _break_off(self, how: str) -> None:
        self._log.warning("agent broke its own stream", how=how)
        self.stop(_crashed("The agent's process sent what is no event."), grace=0)

    def _end(self, event: pb.Event, encoded: bytes) -> bytes:
        """Say the terminal event, the one event that the engine reads: this is the one place that lets one out."""
        self._over = True
        about: dict[str, str] = {}
        if event.HasField("agent_failed"):
            # Not its sentence: an agent's own is for its user alone, and an incident's is in the log by its id.
            about["reason"] = pb.FailureReason.Name(event.agent_failed.reason).removeprefix("FAILURE_REASON_").lower()
        self._log.info("run ended", ending=event.WhichOneof("kind"), events=event.seq, **about)
        return encoded


def _nothing() -> None:
    pass


def _ended(how: str) -> pb.AgentFailed:
    """Say what it means that a process ended without saying how its run did."""
    if how == OUT_OF_MEMORY:
        sentence = "The agent needed more memory than a run may have."
        return pb.AgentFailed(reason=pb.FAILURE_REASON_RESOURCE_LIMIT, message=sentence)
    return _crashed(f"The agent's process ended unexpectedly: {how}.")


def _crashed(message: str) -> pb.AgentFailed:
    return pb.AgentFailed(reason=pb.FAILURE_REASON_CRASHED, message=message, retryable=True)
