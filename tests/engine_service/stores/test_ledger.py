"""What follows from events, against a count of them."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from runwire.v1 import events_pb2 as pb

from engine_service.stores.ledger import LARGE, MOST, Ledger
from engine_service.wire import EVENT, event_frame, events_in, frame

NAMES = st.sampled_from(["1", "2", "3"])
AGENTS = st.sampled_from(["root", "root/a", "root/a/b"])
EVENTS = st.one_of(
    st.builds(lambda a: pb.Event(agent=a, agent_started=pb.AgentStarted(input="x")), AGENTS),
    st.builds(lambda a: pb.Event(agent=a, agent_failed=pb.AgentFailed()), AGENTS.filter(lambda a: "/" in a)),
    st.builds(lambda a, n: pb.Event(agent=a, tool_executing=pb.ToolExecuting(call_id=n)), AGENTS, NAMES),
    st.builds(lambda a, n: pb.Event(agent=a, tool_completed=pb.ToolCompleted(call_id=n)), AGENTS, NAMES),
    st.builds(lambda n: pb.Event(agent="root", input_requested=pb.InputRequested(request_id=n)), NAMES),
    st.builds(lambda n: pb.Event(agent="root", input_answered=pb.InputAnswered(request_id=n)), NAMES),
    st.builds(lambda n: pb.Event(agent="root", model_called=pb.ModelCalled(model=n, input_tokens=2)), NAMES),
    st.just(pb.Event(agent="root", agent_message=pb.AgentMessage(delta="x"))),
)


def take(ledger: Ledger, events: list[pb.Event], first: int = 1) -> None:
    for number, event in enumerate(events, first):
        event.seq = number
    ledger.take(b"".join(map(event_frame, events)), first)


def name_of(event: pb.Event) -> tuple[str, str] | None:
    """Return what an event begins, or ends."""
    kind = str(event.WhichOneof("kind"))
    inner = getattr(event, kind)
    match kind.partition("_"):
        case "tool", *_:
            return "tool", f"{event.agent} {inner.call_id}"
        case "input", *_:
            return "input", str(inner.request_id)
        case "agent", _, "started" | "failed" if "/" in event.agent:
            return "agent", event.agent
        case _:
            return None


def left_open(events: list[pb.Event]) -> Counter[tuple[str, str]]:
    """Return how often each thing has begun that did not end."""
    found = Counter[tuple[str, str]]()
    for event in events:
        if (name := name_of(event)) is None:
            continue
        if event.WhichOneof("kind") in {"agent_started", "tool_executing", "input_requested"}:
            found[name] = 1 if name[0] == "input" else found[name] + 1
        else:
            found[name] = max(found[name] - 1, 0)
    return +found


@given(st.lists(EVENTS, max_size=30), st.data())
def test_written_down_anywhere(events: list[pb.Event], data: st.DataObject) -> None:
    """Written down at any position, and gone on from there or from any position before, it is as if it never was."""
    whole = Ledger()
    take(whole, events)
    cut = data.draw(st.integers(0, len(events)))
    first = Ledger()
    take(first, events[:cut])
    second = Ledger(first.written(), first.at)
    again = data.draw(st.integers(0, cut))
    take(second, events[again:], again + 1)
    assert (second.open, second.usage, second.is_over) == (whole.open, whole.usage, whole.is_over)
    known = list(events_in(whole.open))
    assert Counter(map(name_of, known)) == left_open(events)
    assert [event.seq for event in known] == sorted(event.seq for event in known)
    calls = sum(event.HasField("model_called") for event in events)
    assert sum(each.requests for each in pb.Usage.FromString(whole.usage).models) == calls


def test_the_end() -> None:
    """A run is over with its root agent's terminal event, and with no other's."""
    ledger = Ledger()
    take(ledger, [pb.Event(agent="root/a", agent_failed=pb.AgentFailed())])
    assert not ledger.is_over
    take(ledger, [pb.Event(agent="root", agent_completed=pb.AgentCompleted())], 2)
    assert ledger.is_over


def test_what_cannot_be_read() -> None:
    """What is no event makes the rest no less known; but that not all is known is known, and stays so."""
    begun = event_frame(pb.Event(seq=2, agent="root", tool_executing=pb.ToolExecuting(call_id="1")))
    ledger = Ledger()
    assert ledger.take(frame(EVENT, b"\xff\xff\xff") + begun, 1)
    assert ledger.at == 2
    assert len(list(events_in(ledger.open))) == 1
    assert not ledger.is_whole
    assert not Ledger(ledger.written(), ledger.at).is_whole


def test_nothing_changes() -> None:
    """Whoever asks hears whether there is anything new to be written down."""
    text = event_frame(pb.Event(seq=1, agent="root", agent_message=pb.AgentMessage(delta="x")))
    assert not Ledger().take(text, 1)


def test_bounds() -> None:
    """Where calls together are too large, arguments are not known; where there are too many, that is, and stays so."""
    ledger = Ledger()
    calls = [pb.Event(agent="root", tool_executing=pb.ToolExecuting(call_id=str(n), tool="write")) for n in range(9)]
    for call in calls:
        call.tool_executing.arguments.update({"text": "x" * (LARGE // 4)})
    take(ledger, calls)
    known = [event.tool_executing.HasField("arguments") for event in events_in(ledger.open)]
    assert known == [True] * 3 + [False] * 6
    many = [pb.Event(agent="root", tool_executing=pb.ToolExecuting(call_id=str(n))) for n in range(MOST + 1)]
    ends = [pb.Event(agent="root", tool_completed=pb.ToolCompleted(call_id=str(n))) for n in range(MOST + 1)]
    ledger = Ledger()
    take(ledger, [*many, *ends])
    assert ledger.open == b""
    assert not ledger.is_whole
    assert not Ledger(ledger.written(), ledger.at).is_whole
