"""What an agent declares of its parameters: told to callers, and kept to."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from engine_service.runtime import registry
from engine_service.wire import MAX_SCHEMA, RegistryError
from runwire.client import Client
from tests.agents.declaring import Booking, BookingTask
from tests.support.clients import JSON, frames, socket
from tests.support.services import Service, both


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[Service, Service]]:
    with both(AGENTS="tests.agents.declaring,tests.agents.probes:Echo") as (back, front):
        yield back, front


async def test_callers_are_told(services: tuple[Service, Service]) -> None:
    """The list of agents has what each declares, as a JSON Schema; nothing of one that declares nothing."""
    async with Client(services[0].address, token="dev:alice") as client:
        told = {agent.name: agent.parameters_schema for agent in await client.agents()}
    assert told["booking"] == Booking.parameters_schema
    short = BookingTask.parameters_schema
    assert told["booking_task"] == {"type": "object", "properties": short, "required": ["seats"]}
    assert told["echo"] is None


async def said(front: Service, agent: str, parameters: dict[str, Any]) -> tuple[int | None, str]:
    """Run an agent through the gateway, and return the close code with what it said, or why it didn't."""
    async with socket(front.address, JSON) as connection:
        await connection.send(json.dumps({"run": {"agent": agent, "parameters": parameters}}))
        events = [event for frame in await frames(connection) for event in json.loads(frame).get("events", [])]
        if connection.close_code == 1000:
            return 1000, events[-1]["agentCompleted"]["output"]
        return connection.close_code, connection.close_reason or ""


async def test_they_are_kept_to(services: tuple[Service, Service]) -> None:
    """What is declared and otherwise begins no run, and is named; what no form has reaches the agent as it is."""
    right = {"seats": 2, "names": ["a", 1], "more": {"a": None}}
    code, answer = await said(services[1], "booking", right)
    assert (code, json.loads(answer)) == (1000, right)
    code, reason = await said(services[1], "booking", {"seats": 10, "row": "middle"})
    assert code == 4003
    assert "parameters.seats: must be at most 9" in reason
    assert "parameters.row: must be one of front, back" in reason
    assert await said(services[1], "booking_task", {}) == (
        4003,
        "The request is not valid. parameters.seats: is missing",
    )


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("object", "has to be a dict of plain values"),
        ({"type": "object", "default": {1, 2}}, "has to be a dict of plain values"),
        ({"type": "array"}, "is no JSON Schema of an object"),
        ({"text": {"type": "string", "description": "x" * MAX_SCHEMA}}, "more than 32768 bytes"),
    ],
)
def test_what_cannot_be_declared(schema: Any, says: str) -> None:
    """What is no schema stops the boot."""
    agent = type("Wrong", (Booking,), {"parameters_schema": schema})
    with pytest.raises(RegistryError, match=says):
        registry.described(agent, "", "process")
