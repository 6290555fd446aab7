"""What the engine, the zygote and the runs' processes say to each other."""

import asyncio
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runwire.v1.engine_pb2 import RunResponse
from runwire.v1.events_pb2 import AgentCompleted, AgentMessage, Event

from engine_service.messages import NonsenseError
from engine_service.runtime.event_writer import EventTooLargeError, EventWriter
from engine_service.wire import (
    EVENT,
    LAST,
    MAX_SCHEMA,
    MIN_LIMIT,
    NOTE,
    Description,
    Exited,
    Forked,
    FrameSplitter,
    Imported,
    Importing,
    Jailed,
    JailTerms,
    NotForked,
    NotImported,
    Ready,
    Terms,
    Told,
    WarmingUp,
    Watched,
    Words,
    Work,
    ends,
    event_frame,
    frame,
    heard,
    told,
    word,
)
from runwire.service import varint


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


LENGTHS = st.sampled_from([0, 1, 126, 127, 128, 129, 300]).map(lambda length: b"x" * length)
"""Bodies whose lengths take one byte, or two."""


@given(st.lists(st.binary(max_size=30) | LENGTHS, max_size=20), st.lists(st.integers(1, 200), min_size=1))
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
    """Frames laid end to end are the events of a RunResponse; an ending and a note have tags that none of its have."""
    fields = RunResponse.DESCRIPTOR.fields_by_number
    assert [fields[tag >> 3].name for tag in (EVENT,)] == ["events"]
    assert not {LAST >> 3, NOTE >> 3} & set(fields)
    assert {tag & 7 for tag in (EVENT, LAST, NOTE)} == {2}
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
    writer.put("a", tag=LAST, agent_completed=AgentCompleted())
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


AGENT = Description("a", "what it is for", "process", "agents.a", is_public=True, is_forked=False)
TOLD: list[Told] = [
    Importing("agents.a"), Imported(AGENT), NotImported("it cannot be"), Watched("/a.py"),
    Ready(opened=["/a"], threads=1, exits=2, left=["a"]), WarmingUp("A"), Jailed(["files"], {"network": "no"}),
    Forked(pid=7), NotForked("no room"), Exited(pid=7, status=-9),
]  # fmt: skip


@pytest.mark.parametrize("message", TOLD, ids=lambda message: type(message).__name__)
def test_what_a_zygote_tells(message: Told) -> None:
    """Each of its messages is heard as it was told."""
    assert heard(told(message)) == message


def declared(parameters: str) -> bytes:
    return told(Imported(replace(AGENT, parameters=parameters)))


def test_what_a_zygote_tells_of_parameters() -> None:
    """A schema is heard as it was told; what is none, or what no caller could read, means nothing."""
    agent = heard(declared('{"type": "object", "properties": {"a": {"type": "string"}}}'))
    assert isinstance(agent, Imported)
    assert agent.agent.schema
    deep = '{"a": ' * 60 + "1" + "}" * 60
    for nonsense in (
        "[]",
        "{",
        '{"type": "array"}',
        '{"type": "object", "a": NaN}',
        '{"type": "object", "a": 1e999}',
        '{"type": "object", "a": 1' + "0" * 400 + "}",
        '{"type": "object", "a": "' + "x" * MAX_SCHEMA + '"}',
        f'{{"type": "object", "a": {deep}}}',
    ):
        with pytest.raises(NonsenseError):
            heard(declared(nonsense))


def test_every_message_of_a_zygotes_is_tried() -> None:
    """The list above has them all."""
    assert {type(message) for message in TOLD} == set(Told.__args__)


@pytest.mark.parametrize("user", [None, (1000, 100)])
def test_terms_on_a_command_line(user: tuple[int, int] | None) -> None:
    """A zygote reads the terms that it was given."""
    terms = Terms(("a", "b"), 1024, 2**30, 600.5, 60.0, reload=True, apart=("c",), user=user)
    assert Terms.read(terms.encoded()) == terms
    jail = JailTerms("/home", ("/a",), 1024, ("files",), ("LANG",), missing=("disk",))
    terms = replace(terms, jail=jail, upstreams=("openai",), broker="127.0.0.1:1")
    assert Terms.read(terms.encoded()) == terms


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=10), st.integers(1, 50))
def test_words_cut_anywhere(words: list[tuple[int, bytes]], size: int) -> None:
    """However what the engine says arrives, its words come out whole, and in order."""
    data = b"".join(word(tag, body) for tag, body in words)
    listener, out = Words(), list[tuple[int, bytes]]()
    for at in range(0, len(data), size):
        out += listener.feed(data[at : at + size])
    assert out == words


@given(st.integers(0, 2**64 - 1), st.binary(max_size=5))
def test_numbers(number: int, behind: bytes) -> None:
    """A number is read as it was written, whatever stands behind it; not all of it is none."""
    data = varint.encoded(number)
    assert varint.decoded(data + behind, 0) == (number, len(data))
    assert varint.decoded(behind + data, len(behind)) == (number, len(behind) + len(data))
    with pytest.raises(IndexError):
        varint.decoded(data[:-1], 0)


def test_a_number_without_an_end() -> None:
    """What goes on for longer than a number can is none."""
    with pytest.raises(varint.VarintError):
        varint.decoded(b"\xff" * 20, 0)
    assert varint.decoded(b"\xff" * 9 + b"\x01", 0) == (2**64 - 1, 10)


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_where_frames_end(bodies: list[bytes]) -> None:
    """Each frame's end is found, from any of them on."""
    frames = [frame(EVENT, body) for body in bodies]
    data = b"".join(frames)
    expected = [sum(map(len, frames[: place + 1])) for place in range(len(frames))]
    assert list(ends(data, 0)) == expected
    for place, at in enumerate(expected):
        assert list(ends(data, at)) == expected[place + 1 :]


def test_what_the_log_says_of_a_run() -> None:
    """Its id, its user, its agent; and its trace, if it is part of one."""
    work = Work(run_id="1", user_id="alice", agent="a", input="a secret")
    assert work.labels() == {"run_id": "1", "user_id": "alice", "agent": "a"}
    parent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    assert Work("1", "alice", "a", traceparent=parent).labels()["trace_id"] == "a" * 32


@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("limit", [1024, MIN_LIMIT + 7])
def test_the_largest_event(limit: int, excess: int) -> None:
    """An event may be so large and not a byte larger, also in pieces; no limit is smaller than MIN_LIMIT."""
    splitter = FrameSplitter(limit)
    body = bytes(max(limit, MIN_LIMIT) + excess)
    data = frame(EVENT, body)
    out = splitter.cut(data[:3]) + splitter.cut(data[3:100]) + splitter.cut(data[100:])
    assert (out == data, splitter.broken is None) == (not excess, not excess)


@given(st.lists(st.sampled_from([EVENT, NOTE]), max_size=8), st.integers(1, 40))
def test_notes_between_events(tags: list[int], size: int) -> None:
    """Notes are taken out of what is passed on, wherever it is cut; they are no events and have no numbers."""
    frames = [(tag, b"%d" % place * 40) for place, tag in enumerate(tags)]
    data = b"".join(frame(*each) for each in frames) + frame(LAST, b"end") + b"and more"
    splitter, out = FrameSplitter(1024), b""
    for at in range(0, len(data), size):
        out += splitter.cut(data[at : at + size])
    assert out == b"".join(frame(*each) for each in frames if each[0] == EVENT)
    assert splitter.notes == [body.decode() for tag, body in frames if tag == NOTE]
    assert splitter.count == tags.count(EVENT)
    assert (splitter.last, splitter.broken) == (b"end", None)
