"""Browser frames and the contract."""

import json
import timeit
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from runwire.v1 import engine_pb2, events_pb2, gateway_pb2
from runwire.v1.engine_pb2 import RunResponse
from runwire.v1.events_pb2 import Event

from edge_gateway.frames import FrameError, JsonCodec, ProtoCodec
from edge_gateway.proto_json import encoder
from tests.support.messages import messages

KINDS = [field.name for field in Event.DESCRIPTOR.oneofs_by_name["kind"].fields]
MESSAGES = [
    descriptor
    for file in (events_pb2, engine_pb2, gateway_pb2)
    for descriptor in file.DESCRIPTOR.message_types_by_name.values()
]
TEXT = JsonCodec()
BINARY = ProtoCodec()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_survives_json(kind: str) -> None:
    """An event of any kind, filled at random, becomes the JSON that json_format makes, and comes back from it whole."""
    content = Event.DESCRIPTOR.fields_by_name[kind].message_type
    assert content

    @settings(max_examples=60, deadline=None)
    @given(messages(Event.DESCRIPTOR, **{kind: messages(content)}), st.uuids().map(str))
    def check(event: Event, run_id: str) -> None:
        assert event.WhichOneof("kind") == kind
        response = RunResponse(run_id=run_id, events=[event])
        text = TEXT.encode(response.SerializeToString())
        assert json.loads(text) == json.loads(json_format.MessageToJson(response))
        assert json_format.Parse(text, RunResponse()) == response

    check()


@pytest.mark.parametrize("descriptor", MESSAGES, ids=lambda descriptor: descriptor.name)
def test_every_message_of_the_contract(descriptor: Descriptor) -> None:
    """The compiled encoder says what json_format says, for every message there is."""
    encode = encoder(descriptor)

    @settings(max_examples=20, deadline=None)
    @given(messages(descriptor))
    def check(message: Any) -> None:
        assert encode(message) == json_format.MessageToDict(message)

    check()


def test_a_future_enum_value_is_its_number() -> None:
    """A value that this build has no name for is shown as its number, as json_format does."""
    event = Event(seq=1)
    event.agent_failed.reason = 99  # type: ignore[assignment]
    assert encoder(Event.DESCRIPTOR)(event) == json_format.MessageToDict(event)


def test_binary_frames_are_the_engines_bytes() -> None:
    """A binary frame is what the engine sent, untouched."""
    data = RunResponse(run_id="x", events=[Event(seq=1)]).SerializeToString()
    assert BINARY.encode(data) is data


@pytest.mark.parametrize(
    "text", ['{"run": {"agent": "a", "threadId": "t"}}', '{"run": {"agent": "a", "thread_id": "t"}}']
)
async def test_both_spellings_are_understood(text: str) -> None:
    """Names may be written in camelCase or as in the contract."""
    assert (await TEXT.decode(text)).run.thread_id == "t"


@pytest.mark.parametrize(
    "frame",
    [
        "", "null", "[]", "{", "7", '"run"', '{"nonsense": 1}', '{"run": {"nonsense": 1}}', '{"run": 1}',
        '{"run": {}, "run": {}}', '{"run": {}, "cancel": {}}', "[" * 100_000, '{"run": ' * 10_000,
        '{"run": {"resumeWindow": "long"}}', '{"run": {"input": "\\ud800"}}', "1" * 5000, b"{}",
    ],
)  # fmt: skip
async def test_json_that_is_refused(frame: str | bytes) -> None:
    """What is no ClientFrame is refused, unknown fields and two things at once among it."""
    with pytest.raises(FrameError):
        await TEXT.decode(frame)


@pytest.mark.parametrize("frame", ["{}", b"\xff", b"\x0a\x05abc", b"\x9a\x06\x00", b"\x52\x03\xa2\x06\x00"])
async def test_binary_that_is_refused(frame: str | bytes) -> None:
    """What is no ClientFrame is refused, unknown fields at any depth among it."""
    with pytest.raises(FrameError):
        await BINARY.decode(frame)


def test_json_is_three_times_as_fast_as_json_format() -> None:
    """The compiled encoder takes at most a third of MessageToJson's time."""
    response = RunResponse(run_id="123e4567-e89b-42d3-a456-426614174000")
    for seq in range(1, 9):
        event = response.events.add(seq=seq, agent="triage")
        event.time.FromMilliseconds(1_763_000_000_123)
        event.agent_message.delta = "a few words "
    data = response.SerializeToString()
    ratios = []
    for _ in range(5):  # side by side, so that a busy machine slows both
        ours = timeit.timeit(lambda: TEXT.encode(data), number=200)
        theirs = timeit.timeit(lambda: json_format.MessageToJson(RunResponse.FromString(data)), number=200)
        ratios.append(theirs / ours)
    assert max(ratios) >= 3, ratios
