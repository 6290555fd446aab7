"""One trace of a run, from the browser's through gateway and engine to tools and models, as a receiver gets it."""

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psutil
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from runwire.v1.engine_pb2 import RunRequest
from websockets.exceptions import ConnectionClosed

from tests.support.clients import Caller, caller, frames, kind, socket, taken, terminal
from tests.support.receiver import Receiver, Span, grpc_receiver, receiver
from tests.support.services import ROOT, Service, until
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.times import UNIT
from tests.support.valkey import valkey

pytestmark = pytest.mark.operations
AGENTS = "tests.agents.traced,tests.agents.probes"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture(scope="module")
def back(collector: Receiver) -> Iterator[Service]:
    with start_engine(agents=AGENTS, OTLP_ENDPOINT=collector.url) as service:
        yield service


def fresh() -> tuple[str, str]:
    """Return a traceparent, and its trace."""
    trace = uuid.uuid4().hex
    return f"00-{trace}-{PARENT}-01", trace


async def run(user: Caller, agent: str, input: str = "", traceparent: str = "", **fields: Any) -> list[Any]:
    metadata = (*user.metadata, ("traceparent", traceparent)) if traceparent else user.metadata
    return await taken(user.stub.Run(RunRequest(agent=agent, input=input, **fields), metadata=metadata))


def tree(spans: list[Span], of: str, depth: int = 0) -> list[str]:
    """Draw spans below one another."""
    below = [span for span in spans if span.parent_id == of]
    return [line for span in below for line in (f"{'  ' * depth}{span.name}", *tree(spans, span.id, depth + 1))]


async def test_a_run(collector: Receiver, back: Service) -> None:
    """Agents, sub-agents, tools, models and questions are spans, nested, with the times and names that they have."""
    parent, trace = fresh()
    async with caller(back.address, "ann") as ann:
        events = await run(ann, "traced", traceparent=parent, thread_id="a thread")
    spans = await asyncio.to_thread(collector.trace, trace, 6)
    assert sorted(tree(spans, PARENT)) == [
        "    execute_tool add",
        "  chat small-1",
        "  execute_tool add",
        "  execute_tool fail",
        "  invoke_agent below",
        "invoke_agent traced",
    ]
    root = next(span for span in spans if span.parent_id == PARENT)
    assert root.about == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "traced",
        "gen_ai.conversation.id": "a thread",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "enduser.id": "ann",
        "runwire.run_id": root.about["runwire.run_id"],
        "runwire.ending": "completed",
        "runwire.events": len(events),
    }
    [chat] = [span for span in spans if span.kind == "CLIENT"]
    assert chat.about == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "small-1",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.response.time_to_first_chunk": 0.01,
    }
    assert 0.049e9 < chat.ended - chat.began < 0.051e9 or chat.began == root.began
    failed = next(span for span in spans if span.name == "execute_tool fail")
    assert (failed.has_failed, failed.about["error.type"], root.has_failed) == (True, "tool_error", False)
    times = {event.seq: event.time.ToNanoseconds() for event in events}
    calls = [event for event in events if kind(event) in {"tool_executing", "tool_completed"}]
    add = next(span for span in spans if span.name == "execute_tool add")
    assert (add.began, add.ended) == (times[calls[0].seq], times[calls[1].seq])
    assert add.about["gen_ai.tool.call.id"] == calls[0].tool_executing.call_id
    assert all(root.began <= span.began <= span.ended <= root.ended for span in spans)


async def test_content_is_told_where_it_is_asked_for(collector: Receiver, back: Service) -> None:
    for with_content in (False, True):
        parent, trace = fresh()
        with start_engine(agents=AGENTS, OTLP_ENDPOINT=collector.url, OTLP_CONTENT=str(with_content).lower()) as engine:
            async with caller((engine if with_content else back).address) as ann:
                await run(ann, "traced", "secret-input", parent)
            spans = await asyncio.to_thread(collector.trace, trace, 6)
        said = " ".join(map(repr, spans))
        assert ("secret" in said) == with_content
        if with_content:
            for told in ("secret-input", "secret-order", "secret-answer", '{"one": 1.0, "other": 2.0}', "secret-error"):
                assert told in said


@pytest.mark.parametrize(("input", "ending"), [("below:secret fail", "completed"), ("nobody:x", "completed")])
async def test_what_fails_below(collector: Receiver, back: Service, input: str, ending: str) -> None:
    parent, trace = fresh()
    async with caller(back.address) as ann:
        await run(ann, "parent", input, parent)
    spans = await asyncio.to_thread(collector.trace, trace, 2 if input.startswith("below") else 1)
    root = next(span for span in spans if span.parent_id == PARENT)
    assert root.about["runwire.ending"] == ending
    for span in spans:
        if span.name == "invoke_agent below":
            assert (span.has_failed, span.about["error.type"]) == (True, "agent_error")
    assert "secret" not in repr(spans)


async def test_how_runs_end(collector: Receiver, back: Service) -> None:
    """Cancelled, failed, left: whatever was open ends with the run."""
    async with caller(back.address) as ann:
        parent, trace = fresh()
        run_id = str(uuid.uuid4())
        metadata = (*ann.metadata, ("traceparent", parent))
        call = ann.stub.Run(RunRequest(agent="waiter", run_id=run_id), metadata=metadata)
        await taken(call, 2)
        await ann.cancel(run_id)
        await taken(call)
        [span] = await asyncio.to_thread(collector.trace, trace, 1)
        assert (span.about["runwire.ending"], span.has_failed) == ("cancelled", False)
        parent, trace = fresh()
        call = ann.stub.Run(RunRequest(agent="waiter"), metadata=(*ann.metadata, ("traceparent", parent)))
        await taken(call, 2)
        call.cancel()
        [span] = await asyncio.to_thread(collector.trace, trace, 1)
        assert span.about["runwire.ending"] == "left"
        parent, trace = fresh()
        asked = ann.stub.Run(RunRequest(agent="traced", input="ask"), metadata=(*ann.metadata, ("traceparent", parent)))
        async for response in asked:
            if "input_requested" in map(kind, response.events):
                break
        asked.cancel()
        spans = await asyncio.to_thread(collector.trace, trace, 5)
        assert "ask_user question" in [span.name for span in spans]


async def test_without_a_parent(collector: Receiver, back: Service) -> None:
    """A run whose caller is in no trace has one of its own, and the log names it."""
    async with caller(back.address) as ann:
        events = await run(ann, "own")
    record = back.wait_for(lambda record: record["event"] == "run ended" and record["agent"] == "own")
    [span] = await asyncio.to_thread(collector.trace, record["trace_id"], 1)
    assert (span.name, span.parent_id) == ("invoke_agent own", "")
    assert MessageToDict(terminal(events).agent_completed.data)["current"].split("-")[1:3] == [span.trace_id, span.id]


@pytest.mark.parametrize("agent", ["own", "task_own"])
async def test_what_frameworks_make_is_below(collector: Receiver, back: Service, agent: str) -> None:
    """In the run OpenTelemetry's current span is the run's own, and so the environment says; a parent's flags stay."""
    parent, trace = fresh()
    async with caller(back.address) as ann:
        said = MessageToDict(terminal(await run(ann, agent, traceparent=parent)).agent_completed.data)
        [span] = await asyncio.to_thread(collector.trace, trace, 1)
        own = f"00-{trace}-{span.id}-01"
        assert said == {"current": own, "environment": own if agent == "own" else ""}
        unsampled, trace = f"{fresh()[0][:-2]}00", ""
        said = MessageToDict(terminal(await run(ann, agent, traceparent=unsampled)).agent_completed.data)
        assert said["current"].split("-")[1] == unsampled.split("-")[1]
        assert said["current"].endswith("-00")


async def test_without_an_endpoint_the_parent_is_told_on() -> None:
    with start_engine(agents=AGENTS) as back:
        async with caller(back.address) as ann:
            said = MessageToDict(terminal(await run(ann, "own", traceparent=TRACEPARENT)).agent_completed.data)
            assert said == {"current": TRACEPARENT, "environment": TRACEPARENT}
            said = MessageToDict(terminal(await run(ann, "own")).agent_completed.data)
            assert said["environment"] == ""


async def test_from_the_browser(collector: Receiver, back: Service) -> None:
    """The gateway's span is between the browser's and the run's; a refused run has the gateway's alone."""
    with start_gateway(back.address, OTLP_ENDPOINT=collector.url) as front:
        for where in ("frame", "header"):
            parent, trace = fresh()
            headers = {"traceparent": parent} if where == "header" else {}
            async with socket(front.address, additional_headers=headers) as connection:
                said = {"run": {"agent": "traced"}} | ({"traceparent": parent} if where == "frame" else {})
                await connection.send(json.dumps(said))
                await frames(connection)
            spans = await asyncio.to_thread(collector.trace, trace, 7)
            assert tree(spans, PARENT)[:2] == ["GET /v1/stream", "  invoke_agent traced"]
            [top] = [span for span in spans if span.service == "runwire-gateway"]
            assert (top.kind, top.about["websocket.close_code"]) == ("SERVER", 1000)
        parent, trace = fresh()
        async with socket(front.address) as connection:
            await connection.send(json.dumps({"run": {"agent": "nobody"}, "traceparent": parent}))
            with pytest.raises(ConnectionClosed):
                await connection.recv()
        [span] = await asyncio.to_thread(collector.trace, trace, 1)
        assert (span.about["websocket.close_code"], span.about["error.type"]) == (4005, "4005")


async def test_over_grpc() -> None:
    with grpc_receiver() as collector, start_engine(agents=AGENTS, OTLP_ENDPOINT=collector.url) as back:
        parent, trace = fresh()
        async with caller(back.address) as ann:
            await run(ann, "traced", traceparent=parent)
        assert len(await asyncio.to_thread(collector.trace, trace, 6)) == 6


async def test_what_an_agent_says_of_itself_is_bounded(collector: Receiver, back: Service) -> None:
    """Times that cannot be, names without end, and more spans than one run may have."""
    parent, trace = fresh()
    async with caller(back.address) as ann:
        await run(ann, "liar", "1200", parent)
    spans = await asyncio.to_thread(collector.trace, trace, 1001)
    root = next(span for span in spans if span.parent_id == PARENT)
    assert root.about["runwire.spans_dropped"] == 202
    assert all(root.began <= span.began <= span.ended <= root.ended for span in spans)
    assert max(len(span.name) for span in spans) <= 128
    assert max(len(str(value)) for span in spans for value in span.about.values()) <= 4096


async def test_a_run_that_goes_on_elsewhere(collector: Receiver) -> None:
    """The next attempt is in the same trace, below the same parent, and says which it is."""
    settings = {"OTLP_ENDPOINT": collector.url, "DRAIN_GRACE": "5"}
    agents = "tests.agents.savers,tests.agents.claimed"
    with ExitStack() as stack:
        server = stack.enter_context(valkey())
        one, two = (stack.enter_context(start_engine(agents=agents, STORE=server.url, **settings)) for _ in range(2))
        parent, trace = fresh()
        async with caller(one.address) as ann:
            run_id = str(uuid.uuid4())
            request = RunRequest(agent="claimed", input="save and ask", run_id=run_id)
            request.resume_window.CopyFrom(Duration(seconds=60))
            call = ann.stub.Run(request, metadata=(*ann.metadata, ("traceparent", parent)))
            async for response in call:
                if "input_requested" in map(kind, response.events):
                    break
            one.stop()
        two.wait_for(lambda record: record["event"] == "run started")
        async with caller(two.address) as ann:
            await ann.cancel(run_id)
        spans = await asyncio.to_thread(collector.trace, trace, 3)
    roots = sorted((span for span in spans if span.parent_id == PARENT), key=lambda span: span.began)
    assert [span.about["runwire.ending"] for span in roots] == ["handed_over", "cancelled"]
    assert roots[1].about["runwire.attempt"] == 2


@pytest.mark.parametrize("window", [0, 60])
@pytest.mark.parametrize("lie", ["time", "enum", "outcome", "nan", "path 900000", "ids 20", "ending"])
async def test_what_an_agent_makes_up_harms_nobody(collector: Receiver, lie: str, window: int) -> None:
    """Whatever it says, its run ends with one terminal event, the figures count it, and others' spans come."""
    agents = "tests.agents.liars,tests.agents.traced"
    with start_engine(agents=agents, OTLP_ENDPOINT=collector.url, OTLP_CONTENT="true") as back:
        async with caller(back.address, "liar") as liar, caller(back.address, "bob") as bob:
            before = psutil.Process(back.pid).memory_info().rss
            fields: dict[str, Any] = {"resume_window": Duration(seconds=window)} if window else {}
            ending = asyncio.create_task(run(liar, "fabulist", lie, run_id=str(uuid.uuid4()), **fields))
            parent, trace = fresh()
            began = asyncio.get_running_loop().time()
            await run(bob, "traced", traceparent=parent)
            assert asyncio.get_running_loop().time() - began < 3 * UNIT
            events = await ending
            assert kind(events[-1]) == ("agent_failed" if lie == "ending" else "agent_completed")
            assert len(await asyncio.to_thread(collector.trace, trace, 6)) == 6
            assert psutil.Process(back.pid).memory_info().rss - before < 60 * 1024 * 1024
        await until(lambda: ended(back) == 1)
    assert not [record for record in back.records if "followed no more" in str(record.get("event"))]


def ended(back: Service) -> float:
    name = 'runwire_engine_runs_ended_total{agent="fabulist",ending='
    return sum(value for each, value in back.figures().items() if each.startswith(name))


async def test_spans_are_not_too_much_at_once() -> None:
    """Whatever one run tells, its spans fit into what receivers take: others' are sent with them."""
    with grpc_receiver() as collector, start_engine(agents=AGENTS, OTLP_ENDPOINT=collector.url) as back:
        parent, trace = fresh()
        async with caller(back.address, "ann") as ann, caller(back.address, "bob") as bob:
            await asyncio.gather(run(ann, "liar", "900"), run(bob, "traced", traceparent=parent))
        assert len(await asyncio.to_thread(collector.trace, trace, 6)) == 6


@pytest.mark.parametrize("how", ["hangs", "refuses", "gone"])
async def test_a_receiver_that_does_not_receive(how: str) -> None:
    """Runs don't wait for it, the log says it once a minute, and the engine ends as soon as otherwise."""
    with receiver() as collector:
        url = collector.url if how != "gone" else "http://127.0.0.1:1"
        if how == "hangs":
            collector.may_answer.clear()
        collector.answers = 503
        with start_engine(agents=AGENTS, OTLP_ENDPOINT=url) as back:
            async with caller(back.address) as ann:
                for _ in range(5):
                    assert kind((await run(ann, "traced"))[-1]) == "agent_completed"
                if how != "gone":
                    await asyncio.to_thread(collector.wait_asked)
                assert kind((await run(ann, "traced"))[-1]) == "agent_completed"
            began = asyncio.get_running_loop().time()
            assert back.stop() == 0
            assert asyncio.get_running_loop().time() - began < 6 * UNIT
            complaints = [line for line in back.records if "export" in str(line.get("event", line)).lower()]
            assert len(complaints) <= 2


def test_nothing_is_imported_unasked() -> None:
    """Without an endpoint neither service has anything of OpenTelemetry."""
    script = "import engine_service.app, edge_gateway.app, sys; print(*[n for n in sys.modules if 'telemetry' in n])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_it_says_what_is_wrong_with_an_endpoint() -> None:
    with start_engine(OTLP_ENDPOINT="127.0.0.1:4318") as back:
        assert back.wait() == 2
        assert "must be an address, like http://127.0.0.1:4318" in back.lines[0]
