"""What authors test their agents with."""

import re

import pytest
from runwire.v1 import events_pb2 as pb

from engine_service import Agent, AgentError, Answer, RunContext, testing
from tests.agents.declaring import Booking
from tests.agents.functions import greet
from tests.agents.models import Counting


class Clerk(Agent):
    """Looks something up, and asks another."""

    async def run(self, context: RunContext, input: str) -> Answer:
        found = await context.call(look_up, name=input)
        told = await context.delegate("counting", "well")
        said = [f"{message.role}: {message.text}" for message in context.history]
        about = {"user": context.user_id, "thread": context.thread_id, "said": said}
        return Answer(f"{found} {told}", about | dict(context.parameters))


def look_up(name: str) -> str:
    return name.upper()


class Closed(Agent):
    """Never works."""

    async def run(self, context: RunContext, input: str) -> str:
        raise AgentError("The shop is closed.", retryable=True)


async def test_a_class() -> None:
    """A run's events are there, numbered as callers get them, with what it answered."""
    ran = await testing.run(
        Clerk, "order", user_id="alice", thread_id="t", history=[("user", "hello"), ("assistant", "good day")],
        parameters={"urgent": True}, others=[Counting],
    )  # fmt: skip
    assert ran.output == "ORDER done"
    assert ran.data == {
        "user": "alice", "thread": "t", "said": ["user: hello", "assistant: good day"], "urgent": True,
    }  # fmt: skip
    assert [event.seq for event in ran.events] == list(range(1, len(ran.events) + 1))
    assert ran.kinds[:3] == ["agent_started", "tool_executing", "tool_completed"]
    assert ran.kinds[-1] == "agent_completed"
    assert ran.end.agent_completed.usage.models[0].requests == 2


async def test_a_function() -> None:
    """A function is run as it would be as module:function."""
    ran = await testing.run(greet, "world")
    assert (ran.output, ran.end.agent) == ("hello world", "greet")


async def test_one_that_fails() -> None:
    """A failure is an event, as for a caller; asking it for its answer fails the test, with what it was."""
    ran = await testing.run(Closed)
    assert ran.kinds == ["agent_started", "agent_failed"]
    assert ran.end.agent_failed == pb.AgentFailed(
        reason=pb.FAILURE_REASON_AGENT_ERROR, message="The shop is closed.", retryable=True
    )
    with pytest.raises(AssertionError, match="The shop is closed"):
        assert ran.output


async def test_what_is_no_agent() -> None:
    """What is no agent is said so."""
    with pytest.raises(TypeError, match="is no agent: an agent is"):
        await testing.run(7)


async def test_parameters_are_as_declared() -> None:
    """What the engine would refuse fails the test."""
    assert (await testing.run(Booking, parameters={"seats": 1})).output == '{"seats": 1}'
    with pytest.raises(AssertionError, match=re.escape("not what 'booking' declares: {'seats': 'is missing'}")):
        await testing.run(Booking)
