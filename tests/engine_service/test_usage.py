"""What calls to models took."""

from collections.abc import Iterator

import pytest
from runwire.v1 import events_pb2 as pb
from runwire.v1.events_pb2 import Event, ModelCalled, ModelUsage, Usage

from engine_service.usage import MAX_MODELS, MOST, OTHERS, Meter
from tests.support.clients import Caller, caller, kind, said, taken, terminal
from tests.support.services import Service
from tests.support.services import engine as start_engine

TWO = Usage(models=[ModelUsage(model="small", input_tokens=150, output_tokens=15, requests=2, cached_input_tokens=40)])
FOUR = Usage(models=[ModelUsage(model="small", input_tokens=300, output_tokens=30, requests=4, cached_input_tokens=80)])


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with start_engine(agents="tests.agents.models", RUN_TIMEOUT="30") as started:
        yield started


def usage_of(event: Event) -> Usage:
    """Return what a terminal event says of models."""
    found: Usage = getattr(event, kind(event)).usage
    return found


def test_sums_by_model() -> None:
    """Each model has its sums; what an agent delegated is its own, too."""
    root = Meter()
    child = Meter(root)
    assert root.usage is None
    root.count(ModelCalled(model="a", input_tokens=1))
    child.count(ModelCalled(model="a", input_tokens=2, output_tokens=3))
    child.count(ModelCalled(model="b", cached_input_tokens=4))
    assert child.root is root
    assert child.usage == Usage(
        models=[
            ModelUsage(model="a", input_tokens=2, output_tokens=3, requests=1),
            ModelUsage(model="b", cached_input_tokens=4, requests=1),
        ]
    )
    assert root.usage
    assert root.usage.models[0] == ModelUsage(model="a", input_tokens=3, output_tokens=3, requests=2)


def test_it_is_bounded() -> None:
    """However many models an agent names, so many are told apart; and no sum is larger than one can be."""
    meter = Meter()
    for number in range(MAX_MODELS + 10):
        meter.count(ModelCalled(model=str(number), input_tokens=MOST))
    meter.count(ModelCalled(model="0", input_tokens=1))
    assert meter.usage
    assert len(meter.usage.models) == MAX_MODELS + 1
    assert meter.usage.models[-1] == ModelUsage(model=OTHERS, input_tokens=MOST, requests=10)
    assert meter.usage.models[0].input_tokens == MOST


@pytest.mark.parametrize(
    ("asked", "ending", "usage"),
    [
        ("well", "agent_completed", TWO),
        ("fail", "agent_failed", TWO),
        ("model", "agent_failed", TWO),
        ("crash", "agent_failed", TWO),  # said by the engine: the agent's process could not
        ("delegate", "agent_completed", FOUR),
    ],
)
async def test_however_a_run_ends(service: Service, asked: str, ending: str, usage: Usage) -> None:
    """The terminal event has the sums, also of a run that fails, or whose process dies."""
    async with caller(service.address) as alice:
        events = await alice.run("counting", asked)
    end = terminal(events)
    assert (kind(end), usage_of(end)) == (ending, usage)
    calls = [event.model_called for event in events if kind(event) == "model_called"]
    assert (calls[0].elapsed.nanos, calls[0].to_first_word.nanos) == (500_000_000, 250_000_000)
    assert not calls[1].HasField("elapsed")
    inner = [event for event in events if event.agent == "counting/counting" and kind(event) == "agent_completed"]
    assert all(usage_of(event) == TWO for event in inner)


@pytest.mark.parametrize("asked", ["wait", "resist"])
async def test_of_a_run_that_is_cancelled(service: Service, asked: str) -> None:
    """A run that is cancelled has its sums, whether its agent says its end or the engine has to."""
    async with caller(service.address) as alice:
        call = alice.call("counting", asked, run_id=RUN_ID)
        await said(call)
        await alice.cancel(RUN_ID)
        end = (await taken(call))[-1]
    assert (kind(end), usage_of(end)) == ("agent_cancelled", TWO)


RUN_ID = "123e4567-e89b-42d3-a456-426614174000"


async def failure(alice: Caller, asked: str) -> pb.AgentFailed:
    """Return how a run failed."""
    return terminal(await alice.run("counting", asked)).agent_failed


async def test_a_model_that_fails(service: Service) -> None:
    """A model's failure has a reason of its own, and keeps it when an agent was delegated to."""
    async with caller(service.address) as alice:
        for asked in ("model", "delegate to a model that fails"):
            failed = await failure(alice, asked)
            assert failed.reason == pb.FAILURE_REASON_MODEL_ERROR
            assert (failed.message, failed.retryable) == ("The model is busy. Try again in a minute.", True)


async def test_in_task_isolation() -> None:
    """In the engine's own process the same is counted."""
    with start_engine(agents="tests.agents.models_task") as tasks:
        async with caller(tasks.address) as alice:
            assert usage_of(terminal(await alice.run("counting_task", "well"))) == TWO
