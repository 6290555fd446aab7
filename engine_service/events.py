"""Events to bytes, once.

Between an agent and its run, events travel as frames: a tag of one byte, a length, a body. The tag of an event is the
tag of `RunResponse.events`, so that frames laid end to end are the events of a RunResponse, and whoever passes them on
decodes nothing.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal, Protocol, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from runwire.v1 import events_pb2 as pb

RUN_ID = 0x0A
"""The run's id: field 1 of RunResponse. It never comes from an agent."""
EVENT = 0x12
"""An event: field 2, length-delimited, as in RunResponse."""
LAST = 0x1A
"""The root agent's terminal event. A tag of its own lets the run see the end without decoding; it leaves as EVENT."""
NOTE = 0x22
"""Text for the engine's log. It never leaves the engine."""

HEARTBEAT = 0x2A
"""How long a stream is quiet at most: field 5 of RunResponse. It never comes from an agent."""

MORE = 0x80
"""In a byte of a length: more bytes follow."""

MAX_SHIFT = 35
"""Bits of a length: five bytes, and no more."""

MAX_NOTE = 64 * 1024
"""Bytes of one note; what is longer is cut off."""

BREATHER = 128
"""Events that an agent says in one breath. One who never waits would otherwise never hear that it is to stop."""

MIN_LIMIT = 2 * 1024 * 1024
"""No frame below this size is too large for the engine: `agent_started` carries an input of up to 1 MiB."""

NANOSECONDS = 1_000_000_000


class EventTooLargeError(Exception):
    """An event was over the size that one event may have."""


class Sink(Protocol):
    """Where frames go."""

    def write(self, frame: bytes) -> None:
        """Take a frame whole and at once, on any thread."""
        ...

    async def drain(self) -> None:
        """Wait, on the sink's own loop, until what was written has been taken."""
        ...

    @property
    def drained(self) -> bool:
        """Whether everything that was written has been taken."""
        ...


def frame(tag: int, body: bytes) -> bytes:
    """Put a tag and a length in front of a body."""
    length = len(body)
    if length < MORE:
        return bytes((tag, length)) + body
    head = bytearray((tag,))
    while length >= MORE:
        head.append(length % MORE | MORE)
        length >>= 7
    head.append(length)
    return bytes(head) + body


def event_frame(event: pb.Event) -> bytes:
    """Encode an event."""
    return frame(EVENT, event.SerializeToString())


def stamp(event: pb.Event) -> pb.Event:
    """Write the time of day on an event."""
    event.time.seconds, event.time.nanos = divmod(time.time_ns(), NANOSECONDS)
    return event


def head(run_id: str) -> bytes:
    """Encode what every RunResponse begins with. Alone, it is a heartbeat; with event frames behind it, it has them."""
    return frame(RUN_ID, run_id.encode())


def quiet(seconds: float) -> bytes:
    """Encode for how long a stream is quiet at most: it stands in its first message."""
    heartbeat = Duration()
    heartbeat.FromNanoseconds(int(seconds * NANOSECONDS))
    return frame(HEARTBEAT, heartbeat.SerializeToString())


def ends(frames: bytes | bytearray, at: int) -> Iterator[int]:
    """Find where each frame ends, of frames that are whole."""
    while at < len(frames):
        length = shift = 0
        while frames[at := at + 1] >= MORE:
            length |= frames[at] % MORE << shift
            shift += 7
        at += 1 + (length | frames[at] << shift)
        yield at


class Outlet:
    """One run's way out, on the agent's side: numbers events, encodes each once, and waits until it is taken.

    Saying and waiting are two steps, so that a cancelled wait neither tears an event nor takes it back. Both may be
    done on any thread: a lock keeps the order of the numbers and of the bytes the same.
    """

    def __init__(self, sink: Sink, max_event_bytes: int) -> None:
        self._sink = sink
        self._max_event_bytes = max_event_bytes
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._seq = 0
        self._ended = False
        self._unbroken = 0
        self.calls = itertools.count(1)
        """Numbers for tool calls."""

    def put(self, agent: str, *, last: bool = False, bounded: bool = True, **kind: Message) -> None:
        """Say one event. `last` is the root agent's terminal one: nothing can be said after it."""
        event = pb.Event(agent=agent, **cast("Any", kind))
        with self._lock:
            self._put(event, last=last, bounded=bounded)

    def speak(self, speech: "Speech", delta: str) -> None:
        """Say one more piece of text."""
        with self._lock:
            speech.piece.delta = delta
            self._put(speech.event)

    def _put(self, event: pb.Event, *, last: bool = False, bounded: bool = True) -> None:
        if self._ended:
            raise RuntimeError("the run has ended: nothing can be said any more")
        event.seq = self._seq + 1
        body = stamp(event).SerializeToString()
        if bounded and len(body) > self._max_event_bytes:
            raise EventTooLargeError(f"an event of {len(body)} bytes, where {self._max_event_bytes} are allowed")
        self._seq += 1
        self._ended = last
        self._sink.write(frame(LAST if last else EVENT, body))

    def note(self, text: str) -> None:
        """Say something to the engine's log."""
        with self._lock:
            self._sink.write(frame(NOTE, text.encode(errors="replace")[:MAX_NOTE]))

    async def drain(self) -> None:
        """Wait until what was said has been taken: this is the back-pressure that an agent feels."""
        if self._sink.drained:
            self._unbroken += 1
            if self._unbroken % BREATHER == 0:
                await asyncio.sleep(0)
            return
        if asyncio.get_running_loop() is self._loop:
            await self._sink.drain()
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._sink.drain(), self._loop))


class Speech:
    """An event for text that comes in pieces: made once and filled anew for each, which takes a third of the time."""

    def __init__(self, agent: str, kind: Literal["agent_thinking", "agent_message"]) -> None:
        self.event = pb.Event(agent=agent)
        self.piece: pb.AgentThinking | pb.AgentMessage = getattr(self.event, kind)
        self.piece.SetInParent()


class Cutter:
    """The engine's side: cuts what was read at the last whole frame, counts events, and decodes nothing."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max_body = max(max_event_bytes, MIN_LIMIT)
        self._rest = bytearray()
        self.count = 0
        """How many events were cut, the last one not among them."""
        self.broken: str | None = None
        """What is wrong with what came, if it is no sequence of frames. What follows is dropped."""
        self.last: bytes | None = None
        """The body of the terminal event, once there is one. What follows it is dropped."""
        self.notes: list[str] = []
        """What the agent's side had to say to the log. Whoever reads it clears it."""

    def cut(self, data: bytes | bytearray) -> bytes:
        """Take what was read, and return the event frames that are whole."""
        if self.broken:
            return b""
        if self._rest:
            self._rest += data
            data = self._rest
        start = at = 0
        events: list[bytes | bytearray] = []
        size = len(data)
        while self.last is None:
            # Most frames are short events: for these nothing is called.
            while at + 1 < size and data[at] == EVENT and data[at + 1] < MORE and at + 2 + data[at + 1] <= size:
                at += 2 + data[at + 1]
                self.count += 1
            if (found := self._frame(data, at)) is None:
                break
            body, end = found
            tag = data[at]
            if tag == EVENT:
                self.count += 1
            else:
                events.append(data[start:at])
                start = end
                if tag == LAST:
                    self.last = bytes(data[body:end])
                else:
                    self.notes.append(data[body:end].decode(errors="replace"))
            at = end
        events.append(data[start:at])
        if data is self._rest and self.last is None:
            del self._rest[:at]  # in place: an event may come in many pieces
        else:
            self._rest = bytearray(b"" if self.last is not None else data[at:])
        return b"".join(events)

    def _frame(self, data: bytes | bytearray, at: int) -> tuple[int, int] | None:
        """Find where the body of the frame at a position begins and ends; None if it isn't whole, or is none."""
        if at >= len(data):
            return None
        if data[at] not in {EVENT, LAST, NOTE}:
            self.broken = f"unknown tag {data[at]:#x}"
            return None
        length = shift = 0
        for body in range(at + 1, len(data)):
            length |= (data[body] % MORE) << shift
            shift += 7
            if length > self._max_body or shift > MAX_SHIFT:
                self.broken = "a frame over the size of an event"
                return None
            if data[body] < MORE:
                end = body + 1 + length
                return (body + 1, end) if end <= len(data) else None
        return None
