"""The same conversation is told in the same events, whatever framework has it.

Each framework has an environment of its own, with its newest release: `make compat` runs this in each of them.
"""

import asyncio
import importlib.util
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import ROLE_ASSISTANT, ROLE_USER, AnswerRequest, CancelRequest, ListAgentsRequest, Message
from runwire.v1.events_pb2 import Event

from tests.support.clients import Caller, caller, kind, said, terminal
from tests.support.model_server import MODEL, ModelServer, model_server
from tests.support.services import Service
from tests.support.services import engine as start_engine

PACKAGES = {
    "google_adk": "google.adk",
    "langgraph": "langgraph",
    "openai_agents": "agents",
    "pydantic_ai": "pydantic_ai",
}
FRAMEWORKS = {name: f"tests.adapters.apps.{name}_app" for name in PACKAGES}


def _is_here(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # nor is what it would be in
        return False


HERE = [name for name, package in PACKAGES.items() if _is_here(package)]

pytestmark = [
    pytest.mark.measures,
    pytest.mark.frameworks,
    pytest.mark.skipif(not HERE, reason="runs where a framework is: make compat"),
]


KEY = "a secret of the operator's"
WAYS = ("process", "jail")
"""Where the runs are: with the operator's key, or in a jail, where there is only the broker."""


def settings(way: str, server: ModelServer, folders: pytest.TempPathFactory) -> dict[str, str]:
    """Return what an engine is told, whose runs are there."""
    common = {"ISOLATION": way, "DEMO_AGENTS": "false", "IMPORT_TIMEOUT": "60"}
    if way == "process":
        return common
    key = folders.mktemp("keys") / "openai"
    key.write_text(KEY)
    upstreams = {"UPSTREAMS": f"openai={server.url}", "UPSTREAM_KEYS": f"openai={key}"}
    return common | upstreams | {"JAIL_ENV": "LITELLM_LOCAL_MODEL_COST_MAP"}


@pytest.fixture(scope="module", params=[(name, way) for way in WAYS for name in HERE], ids="-".join)
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ModelServer, Service]]:
    framework, way = request.param
    with model_server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it asks the internet at its import
        patch.setenv("OPENAI_BASE_URL", server.url)
        patch.setenv("OPENAI_API_KEY", KEY)
        with start_engine(agents=FRAMEWORKS[framework], **settings(way, server, tmp_path_factory)) as service:
            assert service.wait_for(lambda record: record["event"] == "serving", 60)
            yield server, service


@pytest.fixture
def server(models: tuple[ModelServer, Service]) -> ModelServer:
    return models[0]


@pytest.fixture
def service(models: tuple[ModelServer, Service]) -> Service:
    return models[1]


@pytest.fixture
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["models"][0])


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["models"][1])


@pytest.fixture
async def alice(service: Service) -> AsyncIterator[Caller]:
    async with caller(service.address) as user:
        yield user


def words(events: list[Event]) -> str:
    return "".join(event.agent_message.delta for event in events)


def tools(events: list[Event]) -> list[tuple[str, Any, str, Any]]:
    """Return each call that was begun: its id, what it was called with, and how it ended."""
    ends = {event.tool_completed.call_id: event.tool_completed for event in events if kind(event) == "tool_completed"}
    found: list[tuple[str, Any, str, Any]] = []
    for event in events:
        if kind(event) == "tool_executing":
            call, end = event.tool_executing, ends.pop(event.tool_executing.call_id)
            outcome = end.WhichOneof("outcome") or ""
            found.append((call.call_id, MessageToDict(call.arguments), outcome, MessageToDict(end).get(outcome)))
    assert not ends, "each call that ended was begun"
    return found


async def test_words(alice: Caller) -> None:
    """Words are told as they form, once; the answer has them all; the call to the model is counted."""
    events = await alice.run("forecast", "say something")
    end = terminal(events).agent_completed
    assert words(events) == end.output == "The answer is words."
    assert len([event for event in events if kind(event) == "agent_message"]) >= 4
    [called] = [event.model_called for event in events if kind(event) == "model_called"]
    assert (called.model, called.input_tokens, called.output_tokens, called.cached_input_tokens) == (MODEL, 100, 10, 60)
    assert called.elapsed.ToNanoseconds() >= called.to_first_word.ToNanoseconds() > 0
    [usage] = end.usage.models
    assert (usage.model, usage.requests, usage.input_tokens, usage.output_tokens) == (MODEL, 1, 100, 10)


async def test_a_tool(alice: Caller) -> None:
    """A tool's call has the model's own id, what it was called with, and what it returned."""
    events = await alice.run("forecast", "one tool")
    assert tools(events) == [("call_0_0", {"city": "Oslo"}, "result", "7 degrees in Oslo")]
    end = terminal(events).agent_completed
    assert end.output == "7 degrees in Oslo it is."
    assert [model.requests for model in end.usage.models] == [2]


async def answered(alice: Caller, agent: str, asked: str, *answers: dict[str, Any]) -> list[Event]:
    """Run an agent, and give these answers to what it asks, in the order in which it asks."""
    left, events = list(answers), list[Event]()
    async for response in alice.call(agent, asked):
        for event in response.events:
            events.append(event)
            if kind(event) == "input_requested" and left:
                request = AnswerRequest(
                    run_id=response.run_id, request_id=event.input_requested.request_id, **left.pop(0)
                )
                await alice.stub.Answer(request, metadata=alice.metadata)
    return events


YES, NO = {"outcome": pb.INPUT_OUTCOME_ACCEPTED}, {"outcome": pb.INPUT_OUTCOME_DECLINED}


async def test_tools_that_have_to_be_approved_of(alice: Caller) -> None:
    """Each call is asked about with its arguments, both at once; one is called, and the other is not, in one run."""
    events = await answered(alice, "careful", "pay twice", YES, NO)
    asked = [event.input_requested for event in events if kind(event) == "input_requested"]
    assert [(each.tool, each.call_id) for each in asked] == [("pay", "call_0_0"), ("pay", "call_0_1")]
    assert [MessageToDict(each.proposed)["to"] for each in asked] == ["alice", "bob"]
    assert {each.reason for each in asked} == {pb.INPUT_REASON_TOOL_APPROVAL}
    assert tools(events) == [
        ("call_0_0", {"amount": 40, "to": "alice"}, "result", "40 to alice"),
        ("call_0_1", {"amount": 41, "to": "bob"}, "error", "The user did not approve of it."),
    ]
    assert [kind(event) for event in events].count("input_answered") == 2
    end = terminal(events).agent_completed
    assert "40 to alice" in end.output  # and why the other was not, in whatever order
    assert [model.requests for model in end.usage.models] == [2]


@pytest.mark.usefixtures("server")
async def test_nobody_approves(framework: str) -> None:
    """What nobody answered was not refused, and the model hears that."""
    with start_engine(agents=FRAMEWORKS[framework], DEMO_AGENTS="false", ASK_TIMEOUT="0.3") as service:
        async with caller(service.address) as alice:
            events = await alice.run("careful", "pay")
    unanswered = "Nobody approved of it in time, which is no refusal."
    assert tools(events) == [("call_0_0", {"amount": 40, "to": "alice"}, "error", unanswered)]
    assert kind(terminal(events)) == "agent_completed"


async def test_a_graph_that_asks(framework: str, alice: Caller) -> None:
    """What a node interrupts with is asked, and what is answered is what it gets; text, or as it wants it."""
    if framework != "langgraph":
        pytest.skip("there is nothing like it")
    who, order = ({**YES, "content": struct(**{name: value})} for name, value in (("answer", "Alice"), ("order", 17)))
    events = await answered(alice, "curious", "well?", who, order)
    assert [event.input_requested.message for event in events if kind(event) == "input_requested"] == [
        "Who are you?", "Which order?",
    ]  # fmt: skip
    assert terminal(events).agent_completed.output == "Alice wants order 17."
    assert words(events) == "Alice wants order 17."
    assert (
        terminal(await answered(alice, "curious", "well?", NO)).agent_failed.message == "The user declined to answer."
    )


async def test_a_tool_that_a_person_is(framework: str, alice: Caller) -> None:
    """What nobody but a person can do is asked of the run's user; one who declines makes it a tool that failed."""
    if framework != "pydantic_ai":
        pytest.skip("there is nothing like it")
    for given, outcome in (({**YES, "content": struct(result="20 g")}, "20 g"), (NO, "did not")):
        events = await answered(alice, "postmaster", "weigh it", given)
        [asked] = [event.input_requested for event in events if kind(event) == "input_requested"]
        assert asked.message == 'What does weigh return for {"what": "a letter"}?'
        [(_, arguments, _, said)] = tools(events)
        assert arguments == {"what": "a letter"}
        assert outcome in said
        assert kind(terminal(events)) == "agent_completed"


async def test_a_server_of_tools_that_asks(framework: str, alice: Caller) -> None:
    """What an MCP server asks for is asked of the run's user, and what was answered is what it gets."""
    if framework not in {"google_adk", "pydantic_ai"}:
        pytest.skip("there is nothing like it")
    four = {**YES, "content": struct(seats=4, window=True)}
    for given, result in ((four, "accept Wish(seats=4, window=True, name=None)"), (NO, "decline")):
        events = await answered(alice, "host", "book a table", given)
        [asked] = [event.input_requested for event in events if kind(event) == "input_requested"]
        assert asked.message == "For how many?"
        schema = MessageToDict(asked.schema)
        assert schema["required"] == ["seats"]
        assert schema["properties"]["seats"] == {"type": "integer", "title": "Seats", "minimum": 1, "maximum": 8}
        assert schema["properties"]["name"] == {"type": "string", "title": "Name"}
        assert result in terminal(events).agent_completed.output
    events = await answered(alice, "host", "book two tables", four, NO)
    assert sorted("decline" in str(result) for *_, result in tools(events)) == [False, True]
    assert len([event for event in events if kind(event) == "input_answered"]) == 2
    events = await answered(alice, "host", "pay a deposit", YES)
    [asked] = [event.input_requested for event in events if kind(event) == "input_requested"]
    assert asked.message == "Pay the deposit.\nhttps://example.com/pay"
    assert "accept" in terminal(events).agent_completed.output


def struct(**fields: Any) -> Struct:
    made = Struct()
    made.update(fields)
    return made


async def test_two_tools_at_once(alice: Caller) -> None:
    """Calls that are open at once are told apart."""
    found = tools(await alice.run("forecast", "two tools"))
    assert sorted(each[:2] for each in found) == [("call_0_0", {"city": "Oslo"}), ("call_0_1", {"city": "Rome"})]
    assert {each[3] for each in found} == {"7 degrees in Oslo", "7 degrees in Rome"}


async def test_a_tool_that_is_called_wrongly(alice: Caller) -> None:
    """A call that the tool doesn't take is over as such, and the next one is another; the run goes on."""
    events = await alice.run("forecast", "a tool in the wrong way")
    first, second = tools(events)
    assert (first[0], first[2]) == ("call_0_0", "error")
    assert second == ("call_1_0", {"city": "Oslo"}, "result", "7 degrees in Oslo")
    assert terminal(events).agent_completed.output


async def test_a_tool_that_fails(alice: Caller) -> None:
    """A tool's exception is told as a call that failed, and none of its words."""
    events = await alice.run("forecast", "a tool that fails")
    [(_, _, outcome, _)] = tools(events)
    assert outcome == "error"
    assert kind(terminal(events)) == "agent_failed"
    assert "secret" not in str(events)


async def test_an_answer_with_a_shape(alice: Caller) -> None:
    """A structured answer is the answer's data."""
    end = terminal(await alice.run("shaped", "an answer with a shape")).agent_completed
    assert MessageToDict(end.data) == {"city": "Oslo", "degrees": 7}


async def test_the_readmes_example(
    framework: str, way: str, server: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It is an agent as it stands there, and with the broker, too."""
    agents = f"weather=examples.weather_{framework}:agent"
    with start_engine(agents=agents, **settings(way, server, tmp_path_factory)) as service:
        async with caller(service.address) as alice:
            events = await alice.run("weather", "one tool")
    assert [call[1:] for call in tools(events)] == [({"city": "Oslo"}, "result", "7 degrees in Oslo")]
    assert words(events) == terminal(events).agent_completed.output == "7 degrees in Oslo it is."


async def test_another_agent_takes_over(alice: Caller, framework: str) -> None:
    """Whoever takes over, or is part of another, has a path below it, a beginning, and an end; all calls are summed."""
    if framework == "pydantic_ai":
        pytest.skip("its agents call others as tools, and are told of as such")
    events = await alice.run("desk", "hand it on")
    told = [kind(event) for event in events if event.agent == "desk/researcher"]
    assert (told[0], told[-1], told.count("agent_completed")) == ("agent_started", "agent_completed", 1)
    assert {"agent_message", "model_called"} <= set(told)
    end = terminal(events).agent_completed
    inner = next(event.agent_completed for event in events if event.agent != "desk" and kind(event) == told[-1])
    assert inner.output == end.output
    assert end.usage.models[0].requests == len([event for event in events if kind(event) == "model_called"])


async def test_graphs_in_graphs(alice: Caller, framework: str) -> None:
    """What those inside have done is told as theirs, once; two of one name, at once, have paths of their own."""
    if framework != "langgraph":
        pytest.skip("there is nothing like it")
    assert len(tools(await alice.run("desk", "one tool"))) == 1
    events = await alice.run("fan", "one tool")
    for path in ("fan/sub", "fan/sub-2"):
        told = [kind(event) for event in events if event.agent == path]
        assert (told[0], told[-1]) == ("agent_started", "agent_completed")
        assert [told.count(each) for each in (told[0], "tool_executing", "tool_completed", told[-1])] == [1, 1, 1, 1]


@pytest.mark.usefixtures("models")
async def test_tracing_begins_after_the_fork(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What traces has neither threads nor connections before there are runs."""
    for name, value in (("TRACING", "true"), ("ENDPOINT", "http://127.0.0.1:1"), ("API_KEY", "none")):
        monkeypatch.setenv(f"LANGSMITH_{name}", value)
    with start_engine(agents=FRAMEWORKS[framework], DEMO_AGENTS="false", IMPORT_TIMEOUT="60") as service:
        assert service.wait_for(lambda record: record["event"] == "serving", 60)
        assert not [record for record in service.records if "threads" in record or "left" in record]


async def test_a_call_that_is_cut_off_was_a_call(alice: Caller) -> None:
    """A run that is cancelled in the middle of a model's answer says in its terminal event that there was one."""
    events: list[Event] = []
    cancelled = None
    async for response in alice.call("forecast", "never stop"):
        events += response.events
        if words(events) and not cancelled:
            cancelled = await alice.stub.Cancel(CancelRequest(run_id=response.run_id), metadata=alice.metadata)
    assert [(model.model, model.requests) for model in events[-1].agent_cancelled.usage.models] == [(MODEL, 1)]


async def test_history(alice: Caller) -> None:
    """What was said before is told to the model, in order."""
    history = [Message(role=ROLE_USER, text="hello"), Message(role=ROLE_ASSISTANT, text="good day")]
    end = terminal(await alice.run("forecast", "what was said", history=history)).agent_completed
    assert end.output == "user: hello | assistant: good day | user: what was said"


async def test_parameters_are_no_configuration(alice: Caller, server: ModelServer) -> None:
    """What a caller sends stands under one key, and is nobody's configuration."""
    terminal(await alice.run("secretive", "say something", parameters={"model": "another", "thread_id": "1"}))
    assert server.asked[-1]["model"] == MODEL
    told = json.dumps(server.asked[-1]["messages"])
    assert "parameters: ['parameters'] [('model', 'another'), ('thread_id', '1')]" in told


async def test_leaving_stops_the_model(alice: Caller, server: ModelServer) -> None:
    """Whoever leaves in the middle of a model's answer: the model's server sees it within 100 ms."""
    took = []
    for _ in range(5):
        server.left.clear()
        call = alice.call("forecast", "never stop")
        await said(call)
        left_at = time.monotonic()
        call.cancel()
        assert await asyncio.to_thread(server.left.wait, 20)
        took.append(server.left_at - left_at)
    print(f"the model's server saw it after {sorted(took)[2] * 1000:.0f} ms (median)")
    assert sorted(took)[2] < 0.1


@pytest.mark.parametrize(
    ("asked", "says", "retryable"),
    [
        ("401", "its key is missing or wrong", False),
        ("429", "too much to do", True),
        ("500", "has a problem", True),
        ("a stream that is cut", "", True),
    ],
)
async def test_a_model_that_fails(alice: Caller, asked: str, says: str, *, retryable: bool) -> None:
    """What is wrong with a model is a sentence for the user, without the provider's words; and can be tried again."""
    events = await alice.run("forecast", asked)
    failed = terminal(events).agent_failed
    assert failed.reason == pb.FAILURE_REASON_MODEL_ERROR
    assert says in failed.message
    assert failed.retryable == retryable
    assert "secret" not in str(events)
    assert len(failed.usage.models) == 1  # a call that failed was a call


async def test_reasoning(alice: Caller) -> None:
    """A model's reasoning is no part of its answer."""
    events = await alice.run("thoughtful", "think")
    assert "".join(event.agent_thinking.delta for event in events) == "let me see"
    assert words(events) == terminal(events).agent_completed.output == "seen"


async def test_warming_up(service: Service) -> None:
    """It works with this release, and leaves nothing open."""
    assert not [record for record in service.records if "rehearsed" in str(record) or "left" in record]


async def test_who_they_are(service: Service, alice: Caller) -> None:
    """Agents are named by their variables, and described by what they know of themselves."""
    listed = await alice.stub.ListAgents(ListAgentsRequest(), metadata=alice.metadata)
    about = {agent.name: agent.description for agent in listed.agents}
    assert about["forecast"] in {"Knows the weather.", ""}  # a graph knows nothing of itself
    assert {"forecast", "shaped", "secretive"} <= set(about)
    assert not [record for record in service.records if record.get("level") == "error" and "agent" not in str(record)]


async def test_the_same_events(alice: Caller) -> None:
    """One conversation is told in the same order by all: here is that order."""
    events = await alice.run("forecast", "one tool")
    kinds = [kind(event) for event in events]
    together = [each for place, each in enumerate(kinds) if place == 0 or kinds[place - 1] != each]
    assert together == [
        "agent_started", "model_called", "tool_executing", "tool_completed", "agent_message", "model_called",
        "agent_completed",
    ]  # fmt: skip
