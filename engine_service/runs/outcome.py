"""What a run says, and the one terminal event that ends it: the promise of law 4, in a room without I/O."""

from google.protobuf.message import DecodeError
from runwire.v1 import events_pb2 as pb

from engine_service.wire import EVENT, FrameSplitter, Recovery, event_frame, frame, stamp
from engine_service.workers import OUT_OF_MEMORY

TERMINAL = {"agent_completed", "agent_failed", "agent_cancelled"}

Verdict = pb.AgentFailed | pb.AgentCancelled
"""How a run ends that does not end by itself."""


class Outcome:
    """Takes what an agent says, a verdict, and its worker's end; gives out event frames, the last of them terminal.

    Whatever is taken, and in whatever order: once the worker has ended there was exactly one terminal event, with the
    number that follows, and nothing comes after it.
    """

    def __init__(self, agent: str, max_event_bytes: int, recovery: Recovery | None = None) -> None:
        self._agent = agent
        self._splitter = FrameSplitter(max_event_bytes, recovery.last_seq if recovery else 0)
        self._splitter.usage = recovery.usage if recovery else b""
        self._verdict: Verdict | None = None
        self.broken: str | None = None
        """What is wrong with what the agent's process sent, if it is no stream of events."""
        self.ending: pb.Event | None = None
        """The terminal event, once it was given out."""

    @property
    def is_over(self) -> bool:
        """Whether the terminal event was given out."""
        return self.ending is not None

    @property
    def is_decided(self) -> bool:
        """Whether there is a verdict."""
        return self._verdict is not None

    @property
    def is_the_agents_own(self) -> bool:
        """Whether the terminal event that was given out is what the agent said."""
        return self.is_over and not self.is_decided and self.has_heard_all

    @property
    def has_heard_all(self) -> bool:
        """Whether the agent has said its last: what it still says is not worth reading."""
        return self._splitter.last is not None

    @property
    def count(self) -> int:
        """The number of the newest event that was given out."""
        return self._splitter.count + self.is_over

    @property
    def usage(self) -> pb.Usage | None:
        """What the run's calls to models took so far."""
        return _read_usage(self._splitter.usage)

    def notes(self) -> list[str]:
        """Take what the agent's side had to say to the log."""
        notes = self._splitter.notes[:]
        self._splitter.notes.clear()
        return notes

    def heard(self) -> list[tuple[int, bytes]]:
        """Take what the agent asks its user, whether it waits for that, and what it saves."""
        heard = self._splitter.heard[:]
        self._splitter.heard.clear()
        return heard

    def decide(self, verdict: Verdict) -> bool:
        """End the run so, whatever its agent still says. The first verdict stands; False when this one came late."""
        if self.is_over or self.is_decided:
            return False
        self._verdict = verdict
        return True

    def take(self, data: bytes) -> bytes:
        """Take what was read, and give out the events that are whole. An agent's own ending counts until a verdict."""
        if self.is_over:
            return b""
        events = self._splitter.cut(data)
        self.broken = self.broken or self._splitter.broken
        last = self._splitter.last
        if last is not None and not self.is_decided:
            if event := self._terminal(last):
                self.ending = event
                return events + frame(EVENT, last)
            self.broken = "a terminal event that is none"
        if self.broken:
            self.break_off(self.broken)
        return events

    def break_off(self, how: str) -> None:
        """Hear that what the agent's process sent makes no sense: the run has crashed."""
        self.broken = how
        self.decide(_crashed("The agent's process sent what is no event."))

    def end(self, how: str) -> bytes:
        """Hear that nothing of the worker is left, and give out the terminal event if the agent didn't."""
        if self.is_over:
            return b""
        verdict = self._verdict or _ended(how)
        event = stamp(pb.Event(seq=self.count + 1, agent=self._agent))
        ending = event.agent_failed if isinstance(verdict, pb.AgentFailed) else event.agent_cancelled
        ending.CopyFrom(verdict)  # type: ignore[arg-type]
        if usage := self.usage:
            ending.usage.CopyFrom(usage)
        self.ending = event
        return event_frame(event)

    def _terminal(self, body: bytes) -> pb.Event | None:
        """Read the terminal event; None if it isn't one."""
        try:
            event = pb.Event.FromString(body)
        except DecodeError:
            return None
        is_next = (event.seq, event.agent) == (self._splitter.count + 1, self._agent)
        return event if is_next and event.WhichOneof("kind") in TERMINAL else None


def _read_usage(said: bytes) -> pb.Usage | None:
    """Read what the agent's side said of its calls to models; None if it said nothing, or nothing that can be read."""
    try:
        return pb.Usage.FromString(said) if said else None
    except DecodeError:
        return None


def _ended(how: str) -> pb.AgentFailed:
    """Say what it means that a process ended without saying how its run did."""
    if how == OUT_OF_MEMORY:
        sentence = "The agent needed more memory than a run may have."
        return pb.AgentFailed(reason=pb.FAILURE_REASON_RESOURCE_LIMIT, message=sentence)
    return _crashed(f"The agent's process ended unexpectedly: {how}.")


def _crashed(message: str) -> pb.AgentFailed:
    return pb.AgentFailed(reason=pb.FAILURE_REASON_CRASHED, message=message, retryable=True)
