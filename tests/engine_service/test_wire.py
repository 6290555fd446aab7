"""Events to bytes, once."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runwire.v1.engine_pb2 import RunResponse
from runwire.v1.events_pb2 import AgentCompleted, AgentMessage, Event

from engine_service.runtime.event_writer import EventTooLargeError, EventWriter, event_frame
from engine_service.wire import EVENT, LAST, MIN_LIMIT, NOTE, FrameSplitter, frame


class Heap:
    """A sink that keeps what it is given."""

    drained = True

    def __init__(self) -> None:
        self.data = b""

    def write(self, frame: bytes) -> None:
        self.data += frame

    async def drain(self) -> None:
        raise AssertionError("there is nothing to wait for")


def events(data: bytes) -> list[Event]:
    return list(RunResponse.FromString(data).events)


@given(st.lists(st.binary(max_size=300), max_size=20), st.lists(st.integers(1, 200), min_size=1))
def test_cut_anywhere(bodies: list[bytes], pieces: list[int]) -> None:
    """However the bytes arrive, whole frames come out, in order, and are counted."""
    data = b"".join(frame(EVENT, body) for body in bodies)
    cutter, out, at, turn = FrameSplitter(1000), b"", 0, 0
    while at < len(data):
        piece = pieces[turn % len(pieces)]
        out += cutter.cut(data[at : at + piece])
        at, turn = at + piece, turn + 1
    assert out == data
    assert cutter.count == len(bodies)


def test_frames_are_a_run_responses_events() -> None:
    """Frames laid end to end are the events of a RunResponse."""
    laid = b"".join(event_frame(Event(seq=seq, agent="a" * 200)) for seq in (1, 2, 3))
    assert [event.seq for event in events(laid)] == [1, 2, 3]


def test_the_last_event_is_held_back() -> None:
    """The terminal event is not among what is passed on, and nothing that follows it is."""
    cutter = FrameSplitter(1000)
    out = cutter.cut(frame(EVENT, b"one") + frame(NOTE, b"psst") + frame(LAST, b"end") + frame(EVENT, b"late"))
    assert out == frame(EVENT, b"one")
    assert (cutter.last, cutter.notes, cutter.count) == (b"end", ["psst"], 1)
    assert cutter.cut(frame(EVENT, b"later")) == b""


@pytest.mark.parametrize("data", [b"\x00", b"hello", frame(EVENT, b"x") + b"\x01", b"\x12\xff\xff\xff\xff\x7f"])
def test_what_is_no_frame_is_noticed(data: bytes) -> None:
    """Bytes that are no frame, or one that could never be allowed, are noticed at once; what came before counts."""
    cutter = FrameSplitter(1000)
    assert len(cutter.cut(data)) == 3 * cutter.count
    assert cutter.broken
    assert cutter.cut(frame(EVENT, b"later")) == b""


def test_a_small_limit_lets_the_input_through() -> None:
    """An `agent_started` carries up to 1 MiB of input, whatever the limit for events is."""
    data = frame(EVENT, bytes(MIN_LIMIT))
    assert FrameSplitter(1024).cut(data) == data


async def test_events_count_without_a_gap() -> None:
    """Events are numbered 1, 2, 3 …; one that is refused takes no number."""
    heap = Heap()
    writer = EventWriter(heap, max_event_bytes=1000)
    writer.put("a", agent_message=AgentMessage(delta="x"))
    with pytest.raises(EventTooLargeError):
        writer.put("a", agent_message=AgentMessage(delta="x" * 1000))
    writer.put("a", agent_message=AgentMessage(delta="y"))
    assert [event.seq for event in events(heap.data)] == [1, 2]


async def test_nothing_follows_the_last() -> None:
    """After the terminal event nothing can be said."""
    writer = EventWriter(Heap(), max_event_bytes=1000)
    writer.put("a", last=True, agent_completed=AgentCompleted())
    with pytest.raises(RuntimeError, match="ended"):
        writer.put("a", agent_message=AgentMessage(delta="late"))


async def test_threads_keep_the_order() -> None:
    """Events said by many threads at once are numbered in the order of their bytes."""
    heap = Heap()
    writer = EventWriter(heap, max_event_bytes=1000)

    def talk() -> None:
        for _ in range(200):
            writer.put("a", agent_message=AgentMessage(delta="x"))

    threads = [threading.Thread(target=talk) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert [event.seq for event in events(heap.data)] == list(range(1, 801))
