"""What follows from events, against a list of them."""

from hypothesis import given
from hypothesis import strategies as st
from runwire.v1 import events_pb2 as pb

from engine_service.stores.ledger import LARGE, MOST, Ledger
from engine_service.wire import events_in

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


def numbered(events: list[pb.Event]) -> list[pb.Event]:
    numbered = []
    for seq, event in enumerate(events, 1):
        one = pb.Event()
        one.CopyFrom(event)
        one.seq = seq
        numbered.append(one)
    return numbered


def ended(event: pb.Event, later: pb.Event) -> bool:
    """Tell whether one event ends what another has begun."""
    if event.HasField("tool_executing"):
        same = later.tool_completed.call_id == event.tool_executing.call_id
        return later.HasField("tool_completed") and later.agent == event.agent and same
    if event.HasField("input_requested"):
        return later.HasField("input_answered") and later.input_answered.request_id == event.input_requested.request_id
    return later.HasField("agent_failed") and later.agent == event.agent


def begins(event: pb.Event) -> bool:
    sub_agent = event.HasField("agent_started") and "/" in event.agent
    return sub_agent or event.HasField("tool_executing") or event.HasField("input_requested")


@given(st.lists(EVENTS, max_size=30), st.data())
def test_written_down_anywhere(events: list[pb.Event], data: st.DataObject) -> None:
    """Written down at any position, and gone on from there or from any position before, it is as if it never was."""
    told = numbered(events)
    whole = Ledger()
    whole.take(told)
    cut = data.draw(st.integers(0, len(told)))
    first = Ledger()
    first.take(told[:cut])
    second = Ledger(first.written(), first.at)
    second.take(told[data.draw(st.integers(0, cut)) :])
    assert (second.open, second.usage, second.is_over) == (whole.open, whole.usage, whole.is_over)
    left = [
        event for at, event in enumerate(told) if begins(event) and not any(ended(event, later) for later in told[at:])
    ]
    wanted = {(event.agent, event.WhichOneof("kind")) for event in left}
    assert {(event.agent, event.WhichOneof("kind")) for event in events_in(whole.open)} == wanted
    calls = sum(event.HasField("model_called") for event in told)
    assert sum(each.requests for each in pb.Usage.FromString(whole.usage).models) == calls


def test_the_end() -> None:
    """A run is over with its root agent's terminal event, and with no other's."""
    ledger = Ledger()
    ledger.take(numbered([pb.Event(agent="root/a", agent_failed=pb.AgentFailed())]))
    assert not ledger.is_over
    ledger.take([pb.Event(seq=2, agent="root", agent_completed=pb.AgentCompleted())])
    assert ledger.is_over


def test_bounds() -> None:
    """What is too large is known without its arguments; where there is too much, that is known, and stays known."""
    large = pb.Event(agent="root", tool_executing=pb.ToolExecuting(call_id="large", tool="write"))
    large.tool_executing.arguments.update({"text": "x" * LARGE})
    ledger = Ledger()
    ledger.take(numbered([large]))
    [known] = events_in(ledger.open)
    assert (known.tool_executing.tool, known.tool_executing.HasField("arguments")) == ("write", False)
    calls = [pb.Event(agent="root", tool_executing=pb.ToolExecuting(call_id=str(number))) for number in range(MOST)]
    ledger.take(numbered(calls))
    ends = [pb.Event(agent="root", tool_completed=pb.ToolCompleted(call_id=str(number))) for number in range(MOST)]
    many = Ledger()
    many.take(numbered([large, *calls, *ends]))
    assert not many.is_whole
    assert not Ledger(many.written(), many.at).is_whole
