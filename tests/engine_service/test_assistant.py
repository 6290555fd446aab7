"""The built-in assistant, with a server of models that speaks HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import ROLE_ASSISTANT, ROLE_USER, Message

from tests.support.clients import Caller, caller, kind, said, terminal
from tests.support.model_server import MODEL, ModelServer, model_server
from tests.support.services import Service
from tests.support.services import engine as start_engine
from tests.support.times import UNIT


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[ModelServer, Service]]:
    with model_server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.url)
        patch.setenv("OPENAI_API_KEY", "a key")
        with start_engine(agents="", ASSISTANT_MODEL=MODEL, DEMO_AGENTS="false") as service:
            yield server, service


@pytest.fixture
async def alice(served: tuple[ModelServer, Service]) -> AsyncIterator[Caller]:
    async with caller(served[1].address) as user:
        yield user


async def test_it_answers(alice: Caller) -> None:
    """Words come as they form; what the call took is told."""
    events = await alice.run("assistant", "say something")
    end = terminal(events).agent_completed
    assert "".join(event.agent_message.delta for event in events) == end.output == "The answer is words."
    [usage] = end.usage.models
    assert (usage.model, usage.requests, usage.input_tokens, usage.output_tokens) == (MODEL, 1, 100, 10)


async def test_it_knows_what_was_said(alice: Caller) -> None:
    """The conversation is sent along."""
    history = [Message(role=ROLE_USER, text="hello"), Message(role=ROLE_ASSISTANT, text="good day")]
    end = terminal(await alice.run("assistant", "what was said", history=history)).agent_completed
    assert end.output == "user: hello | assistant: good day | user: what was said"


async def test_it_shows_its_reasoning(alice: Caller) -> None:
    """It is no part of the answer."""
    events = await alice.run("assistant", "think")
    assert [event.agent_thinking.delta for event in events if kind(event) == "agent_thinking"] == ["let me see"]
    assert terminal(events).agent_completed.output == "The answer is words."


@pytest.mark.parametrize(
    ("asked", "says", "retryable"),
    [
        ("401", "its key is missing or wrong", False),
        ("429", "Try again in 7 seconds", True),
        ("500", "has a problem", True),
        ("a stream that is cut", "broke off", True),
        ("an error in the middle", "broke off", True),
        ("refuse", "refused", False),
    ],
)
async def test_a_model_that_fails(alice: Caller, asked: str, says: str, *, retryable: bool) -> None:
    """It is told in a sentence, without the provider's words."""
    events = await alice.run("assistant", asked)
    failed = terminal(events).agent_failed
    assert (failed.reason, failed.retryable) == (pb.FAILURE_REASON_MODEL_ERROR, retryable)
    assert says in failed.message
    assert "secret" not in str(events)
    assert failed.usage.models[0].requests == 1


async def test_leaving_stops_the_model(alice: Caller, served: tuple[ModelServer, Service]) -> None:
    """Whoever leaves in the middle of an answer: the model's server sees it."""
    server, _ = served
    server.left.clear()
    call = alice.call("assistant", "never stop")
    await said(call)
    left_at = time.monotonic()
    call.cancel()
    assert await asyncio.to_thread(server.left.wait, 20 * UNIT)
    assert server.left_at - left_at < UNIT


async def test_it_has_a_process_wherever_others_run(served: tuple[ModelServer, Service]) -> None:
    """Also where agents are tasks that don't say."""
    assert served[0].url
    with start_engine(agents="", ASSISTANT_MODEL=MODEL, DEMO_AGENTS="false", ISOLATION="task") as service:
        async with caller(service.address) as somebody:
            assert terminal(await somebody.run("assistant", "say something")).agent_completed.output


def test_without_a_model_it_is_not_there() -> None:
    """The boot says how to have it."""
    with start_engine() as service:
        serving = service.wait_for(lambda record: record["event"] == "serving")
        assert "assistant" not in serving["agents"]
        assert service.wait_for(lambda record: "RUNWIRE_ENGINE_ASSISTANT_MODEL" in record["event"])
