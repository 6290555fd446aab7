"""Law 3: an event is encoded once, where it happens. From there it travels as bytes."""

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from runwire.v1.engine_pb2 import ResumeRequest, RunRequest
from runwire.v1.gateway_pb2 import ClientFrame

from engine_service.wire import EVENT, ends
from tests.agents.odd import ODD
from tests.support.clients import PROTO, caller, events_of, frames, kinds, socket
from tests.support.services import both

MINUTE = Duration(seconds=60)
RUN_ID = "123e4567-e89b-42d3-a456-426614174000"


def bodies(messages: list[bytes]) -> list[bytes]:
    """Return the frames of a stream's events, as they came."""
    found = []
    for message in messages:
        at = 0
        for end in ends(message, 0):
            found += [message[at:end]] if message[at] == EVENT else []
            at = end
    return found


async def raw(call: Any) -> list[bytes]:
    return [message async for message in call]


@pytest.mark.parametrize("window", [None, MINUTE])
async def test_the_bytes_that_the_agent_wrote(window: Duration | None) -> None:
    """What an agent's process writes in a way that no encoder would arrives so: over gRPC, again, and in frames."""
    with both(AGENTS="tests.agents.odd") as (back, front):
        async with caller(back.address) as alice:
            request = RunRequest(agent="odd", run_id=RUN_ID, resume_window=window)
            run: Any = alice.channel.unary_stream("/runwire.v1.EngineService/Run", None, None)
            told = bodies(await raw(run(request.SerializeToString(), metadata=alice.metadata)))
            assert ODD in told
            assert kinds(events_of([b"".join(told)])) == ["agent_started", "agent_message", "agent_completed"]
            if window:
                resume: Any = alice.channel.unary_stream("/runwire.v1.EngineService/Resume", None, None)
                again = ResumeRequest(run_id=RUN_ID, after_seq=0).SerializeToString()
                assert bodies(await raw(resume(again, metadata=alice.metadata))) == told
        async with socket(front.address, PROTO) as connection:
            frame = ClientFrame(run=RunRequest(agent="odd", resume_window=window), access_token="dev:bob")
            await connection.send(frame.SerializeToString())
            assert ODD in bodies(await frames(connection))


async def test_nobody_between_decodes() -> None:
    """An event that is none arrives as it was written: whoever passes it on has not looked into it."""
    with both(AGENTS="tests.agents.odd") as (back, _):
        async with caller(back.address) as alice:
            run: Any = alice.channel.unary_stream("/runwire.v1.EngineService/Run", None, None)
            call = run(RunRequest(agent="odd", input="garbage").SerializeToString(), metadata=alice.metadata)
            assert b"\x12\x03\xff\xff\xff" in bodies(await raw(call))
            assert await call.code() is grpc.StatusCode.OK
