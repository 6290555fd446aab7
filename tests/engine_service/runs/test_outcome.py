"""Law 4, without a process: any order of what an agent says, of verdicts, and of its worker's end."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import RunResponse

from engine_service.runs.outcome import TERMINAL, Outcome
from engine_service.wire import EVENT, LAST, NOTE, frame

ROOT = "root"
ENDINGS = {
    "agent_completed": pb.AgentCompleted(output="done"),
    "agent_failed": pb.AgentFailed(reason=pb.FAILURE_REASON_AGENT_ERROR),
    "agent_cancelled": pb.AgentCancelled(reason="told"),
}
VERDICTS = [
    pb.AgentFailed(reason=pb.FAILURE_REASON_TIMEOUT),
    pb.AgentFailed(reason=pb.FAILURE_REASON_ENGINE_DRAINING),
    pb.AgentCancelled(reason="Cancelled by its user."),
]


class Story(RuleBasedStateMachine):
    """One run, with whatever can happen to it."""

    @initialize()
    def begin(self) -> None:
        self.outcome = Outcome(ROOT, 1024)
        self.said = bytearray()  # what the agent wrote and nobody read yet
        self.seq = 0
        self.has_ended = self.is_gone = self.is_torn = False
        self.out = b""
        self.verdict: pb.AgentFailed | pb.AgentCancelled | None = None

    @precondition(lambda self: not self.has_ended)
    @rule(path=st.sampled_from([ROOT, f"{ROOT}/child"]), ends=st.booleans(), text=st.text(max_size=200))
    def say(self, path: str, *, ends: bool, text: str) -> None:
        """An event of the root's or of a sub-agent's, whose own ending ends nothing."""
        self.seq += 1
        event = pb.Event(seq=self.seq, agent=path)
        if ends and path != ROOT:
            event.agent_completed.output = text
        else:
            event.agent_message.delta = text
        self.said += frame(EVENT, event.SerializeToString())

    @rule(text=st.text(max_size=20))
    def note(self, text: str) -> None:
        self.said += frame(NOTE, text.encode())

    @precondition(lambda self: not self.has_ended)
    @rule(kind=st.sampled_from(sorted(ENDINGS)))
    def end(self, kind: str) -> None:
        """The root agent's own ending."""
        self.seq += 1
        event = pb.Event(seq=self.seq, agent=ROOT)
        getattr(event, kind).CopyFrom(ENDINGS[kind])
        self.said += frame(LAST, event.SerializeToString())
        self.has_ended = True

    @rule(data=st.binary(min_size=1, max_size=20))
    def write_garbage(self, data: bytes) -> None:
        self.said += data
        self.is_torn = True

    @rule(
        seq=st.integers(0, 3),
        path=st.sampled_from([ROOT, "other"]),
        kind=st.sampled_from(["agent_started", "agent_completed"]),
    )
    def end_wrongly(self, seq: int, path: str, kind: str) -> None:
        """A terminal event that may be none: another number, another agent, another kind."""
        event = pb.Event(seq=self.seq + seq, agent=path)
        getattr(event, kind).SetInParent()
        self.said += frame(LAST, event.SerializeToString())
        self.is_torn = True

    @precondition(lambda self: not self.is_gone)
    @rule(size=st.integers(0, 300))
    def read(self, size: int) -> None:
        """What was written is read, cut anywhere."""
        self.out += self.outcome.take(bytes(self.said[:size]))
        del self.said[:size]

    @rule(verdict=st.sampled_from(VERDICTS))
    def decide(self, verdict: pb.AgentFailed | pb.AgentCancelled) -> None:
        """The first verdict stands, unless the run is over or has broken its stream before."""
        if self.outcome.decide(verdict):
            assert self.verdict is None
            self.verdict = verdict

    @precondition(lambda self: not self.is_gone)
    @rule()
    def leave(self) -> None:
        """Its worker is gone: from now on the run is over, whatever was said."""
        self.is_gone = True
        self.out += self.outcome.end("killed by SIGKILL")
        assert self.outcome.is_over

    @invariant()
    def exactly_one_terminal_event(self) -> None:
        """It is the last one, it is there exactly when the run is over, and the engine's own has the next number."""
        events = list(RunResponse.FromString(self.out).events) if not self.is_torn else self._readable()
        ends = [event for event in events if event.agent == ROOT and event.WhichOneof("kind") in TERMINAL]
        assert len(ends) <= 1 or self.is_torn
        assert bool(ends[-1:]) >= self.outcome.is_over
        if self.outcome.is_over:
            assert events[-1] == self.outcome.ending
            assert self.outcome.take(b"\x12\x00") == b""
            assert self.outcome.end("again") == b""
        if not self.is_torn:
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
        if self.verdict and (ending := self.outcome.ending):
            assert self.verdict in (ending.agent_failed, ending.agent_cancelled)

    def _readable(self) -> list[pb.Event]:
        """Return the terminal event alone: of a torn stream, what came before it may be no events."""
        return [self.outcome.ending] if self.outcome.ending else []


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
