"""What a caller may ask."""

from typing import Any, cast

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest
from runwire.v1.engine_pb2 import ROLE_ASSISTANT, ROLE_USER, Message, RunRequest

from engine_service.calls.requests import MAX_TEXT, read, trace_of, work_of
from engine_service.runs.refusal import Code, Refusal
from engine_service.runtime.agent import Message as Said
from engine_service.runtime.agent import RunContext, Shared
from engine_service.schema import ParametersSchema
from engine_service.testing import TERMS
from engine_service.usage import Meter


def test_the_trace_is_found() -> None:
    """A W3C traceparent says which trace a call is part of; one that cannot be read says nothing."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = f"00-{trace}-00f067aa0ba902b7-01"
    assert trace_of([("traceparent", parent)]) == trace_of([("traceparent", f"{parent}-more")]) == parent
    for other in ("", "nonsense", f"00-{trace}"):
        assert trace_of([("traceparent", other)]) == ""
    assert trace_of([]) == ""


async def violations(request: RunRequest) -> set[str]:
    with pytest.raises(Refusal) as caught:
        await work_of(await read(request.SerializeToString()), "alice")
    assert caught.value.code is Code.INVALID_ARGUMENT
    [detail] = caught.value.details
    assert isinstance(detail, BadRequest)
    return {violation.field for violation in detail.field_violations}


async def test_a_request_becomes_work() -> None:
    """All that was asked is in the work, as plain values."""
    history = [Message(role=ROLE_USER, text="hi"), Message(role=ROLE_ASSISTANT, text="hello")]
    request = RunRequest(agent="a", input="i", thread_id="t", history=history)
    request.parameters["deep"] = {"list": [1, "two", None]}
    work = await work_of(await read(request.SerializeToString()), "alice")
    assert (work.user_id, work.agent, work.input, work.thread_id) == ("alice", "a", "i", "t")
    context: Any = RunContext(Shared.of(work, cast("Any", None), {}, TERMS, is_alone=True), "a", Meter())
    assert context.history == (Said("user", "hi"), Said("assistant", "hello"))
    assert context.parameters == {"deep": {"list": [1, "two", None]}}


async def test_parameters_are_as_the_agent_declares_them() -> None:
    """What is wrong with them is named, however much of it there is."""
    schema = ParametersSchema(
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    )
    request = RunRequest(agent="a")
    request.parameters["a"] = "text"
    assert await work_of(await read(request.SerializeToString()), "alice", schema=schema)
    request.parameters["a"] = 1
    for number in range(1000):
        request.parameters["x" * 200 + str(number)] = number
    with pytest.raises(Refusal) as caught:
        await work_of(await read(request.SerializeToString()), "alice", schema=schema)
    assert len(caught.value.message) < 8 * 1024, "it fits into what a call's status may say"


async def run_id(chosen: str = "") -> str:
    return (await work_of(await read(RunRequest(run_id=chosen).SerializeToString()), "alice")).run_id


async def test_a_run_id_is_made_or_taken() -> None:
    """A caller may choose the run's id, in any case of letters; one is made otherwise."""
    chosen = "123E4567-E89B-42D3-A456-426614174000"
    assert await run_id(chosen) == chosen.lower()
    assert await run_id() != await run_id()


@pytest.mark.parametrize("run_id", ["7", "123e4567e89b42d3a456426614174000", "{123e4567-e89b-42d3-a456-426614174000}"])
async def test_a_malformed_run_id(run_id: str) -> None:
    """What is no UUID is refused."""
    assert await violations(RunRequest(run_id=run_id)) == {"run_id"}


async def test_all_that_is_wrong_is_named_at_once() -> None:
    """A caller need not send a request twice to learn of two mistakes."""
    request = RunRequest(
        thread_id="é" * 129,
        input="x" * (MAX_TEXT + 1),
        history=[Message(text="x" * MAX_TEXT), Message(role=ROLE_USER, text="x")],
        resume_window=Duration(seconds=-1),
    )
    assert await violations(request) == {"thread_id", "input", "history", "history.role", "resume_window"}


async def test_the_largest_request_is_let_through() -> None:
    """Limits are what may be, not what may not."""
    request = RunRequest(
        thread_id="é" * 128, input="x" * MAX_TEXT, history=[Message(role=ROLE_USER, text="x" * MAX_TEXT)]
    )
    assert (await work_of(await read(request.SerializeToString()), "alice")).input == request.input
