"""Events to bytes, once, where they happen."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Literal, Protocol, cast

from google.protobuf.message import Message
from runwire.v1 import events_pb2 as pb

from engine_service.wire import EVENT, LAST, MAX_NOTE, NOTE, frame, stamp

BREATHER = 1024
"""Events that an agent says in one breath. One who never waits would otherwise never hear that it is to stop."""


class EventTooLargeError(Exception):
    """An event was over the size that one event may have."""


class Sink(Protocol):
    """Where frames go."""

    def write(self, frame: bytes) -> None:
        """Take a frame whole and at once, on any thread."""
        ...

    async def drain(self) -> None:
        """Wait, on the sink's own loop, until the writer may go on."""
        ...

    @property
    def drained(self) -> bool:
        """Whether the writer may go on without waiting."""
        ...


class EventWriter:
    """One run's way out, on the agent's side: numbers events, encodes each once, and waits until it is taken.

    Saying and waiting are two steps, so that a cancelled wait neither tears an event nor takes it back. Both may be
    done on any thread: a lock keeps the order of the numbers and of the bytes the same.
    """

    def __init__(self, sink: Sink, max_event_bytes: int, last_seq: int = 0) -> None:
        self._sink = sink
        self._max_event_bytes = max_event_bytes
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._seq = last_seq
        self._ended = False
        self._unbroken = 0

    def put(self, agent: str, *, tag: int = EVENT, bounded: bool = True, **kind: Message) -> None:
        """Say one event. LAST is the root agent's terminal one: nothing can be said after it."""
        self.put_event(pb.Event(agent=agent, **cast("Any", kind)), tag=tag, bounded=bounded)

    def put_event(self, event: pb.Event, *, tag: int = EVENT, bounded: bool = True) -> None:
        """Say one that is made already, but for its number and its time."""
        with self._lock:
            self._put(event, tag=tag, bounded=bounded)

    def speak(self, speech: "Speech", delta: str) -> None:
        """Say one more piece of text."""
        with self._lock:
            speech.piece.delta = delta
            self._put(speech.event)

    def _put(self, event: pb.Event, *, tag: int = EVENT, bounded: bool = True) -> None:
        if self._ended:
            raise RuntimeError("the run has ended: nothing can be said any more")
        event.seq = self._seq + 1
        body = stamp(event).SerializeToString()
        if bounded and len(body) > self._max_event_bytes:
            raise EventTooLargeError(f"an event of {len(body)} bytes, where {self._max_event_bytes} are allowed")
        self._seq += 1
        self._ended = tag == LAST
        self._sink.write(frame(tag, body))

    def note(self, text: str) -> None:
        """Say something to the engine's log."""
        with self._lock:
            self._sink.write(frame(NOTE, text.encode(errors="replace")[:MAX_NOTE]))

    def tell(self, tag: int, body: bytes) -> None:
        """Tell the engine something that is for nobody else."""
        self.tell_position(tag, lambda _: body)

    def tell_position(self, tag: int, body: Callable[[int], bytes]) -> None:
        """Tell it something that depends on the number of the newest event."""
        with self._lock:
            if not self._ended:
                self._sink.write(frame(tag, body(self._seq)))

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
