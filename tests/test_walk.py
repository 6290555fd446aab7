"""One event's way through every room of the house."""

import json
from typing import Any

from google.protobuf import json_format
from runwire.v1.engine_pb2 import RunResponse
from runwire.v1.events_pb2 import Event
from websockets.asyncio.client import connect

from tests.support.clients import JSON, PROTO, caller, events_of, frames, kinds, opening, socket, terminal
from tests.support.services import Service

ASKED = "My invoice is wrong"


def told(events: list[Event]) -> Any:
    """Return what events say, without what differs from run to run."""
    documents = [json_format.MessageToDict(event) for event in events]
    return json.loads(json.dumps([_plain(document) for document in documents]))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if key not in {"time", "elapsed"}}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


async def test_three_ways_agree(engine: Service, gateway: Service) -> None:
    """A run's events arrive in order, without a gap, and the same over gRPC, JSON frames and binary frames."""
    async with caller(engine.address) as alice:
        direct = await alice.run("triage", ASKED)
    async with socket(gateway.address, PROTO) as connection:
        await connection.send(opening(PROTO, "triage", ASKED))
        binary = events_of(await frames(connection))
        assert connection.close_code == 1000
    async with socket(gateway.address, JSON) as connection:
        await connection.send(opening(JSON, "triage", ASKED))
        text = [event for frame in await frames(connection) for event in json_format.Parse(frame, RunResponse()).events]
        assert connection.close_code == 1000

    for events in (direct, binary, text):
        assert terminal(events).agent_completed.output
    five = ["agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed"]
    firsts = list(dict.fromkeys(kind for kind in kinds(direct) if kind in five))
    assert firsts == five
    assert told(direct) == told(binary) == told(text)


async def test_the_default_is_json(gateway: Service) -> None:
    """A socket that names no subprotocol gets JSON text frames."""
    async with connect(f"ws://{gateway.address}/v1/stream") as connection:
        await connection.send('{"run": {"agent": "echo", "input": "hello"}}')
        received = await frames(connection)
    assert all(isinstance(frame, str) and json.loads(frame)["runId"] for frame in received)
