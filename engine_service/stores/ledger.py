"""What follows from a run's events, up to one of them: what has begun and not ended, and what models took."""

from collections.abc import Iterator
from itertools import chain

from google.protobuf.message import DecodeError
from runwire.v1 import events_pb2 as pb

from engine_service.usage import Meter
from engine_service.wire import NOTE, USAGE, FrameSplitter, ends, event_frame, events_in, frame

MOST = 256
"""Calls, sub-agents and questions that one run may have open, to be known."""
LARGE = 64 * 1024
"""Bytes of what tools are called with that are open, up to which that is known."""

Key = tuple[str, str]


class Ledger:
    """One run's."""

    def __init__(self, before: bytes = b"", at: int = 0) -> None:
        """Begin, or go on from what was written down at a position."""
        self.at = at
        """The number of the newest event that was taken."""
        splitter = FrameSplitter(0)
        self._open: dict[Key, list[pb.Event]] = {}
        self._many = self._size = 0
        self._meter = Meter(None)
        self.is_whole = True
        """Whether all that is open is known."""
        for event in events_in(splitter.cut(before)):
            self._take(event)
        self._meter = Meter(None, splitter.usage)
        self.is_whole = not splitter.notes
        self.is_over = False
        """Whether the run has ended."""

    @property
    def usage(self) -> bytes:
        """What calls to models took."""
        return usage.SerializeToString() if (usage := self._meter.usage) else b""

    @property
    def open(self) -> bytes:
        """The events that have begun what did not end, in their order."""
        events = sorted(chain.from_iterable(self._open.values()), key=_seq)
        return b"".join(event_frame(event) for event in events)

    def take(self, frames: bytes | bytearray, first: int) -> bool:
        """Take event frames, which begin with this number; tell whether that changed anything.

        What was taken before is left out. An agent's process may have sent what cannot be read: then not all is known.
        """
        changed = False
        for number, event in enumerate(_events(frames), first):
            if number <= self.at:
                continue
            self.at = number
            if event is None:
                changed, self.is_whole = True, False
            elif event.WhichOneof("kind") not in TEXT:  # as most are
                changed |= self._take(event)
        return changed

    def written(self) -> bytes:
        """Write it down."""
        usage = frame(USAGE, self.usage) if self.usage else b""
        return usage + self.open + (b"" if self.is_whole else frame(NOTE, b"there is more"))

    def _take(self, event: pb.Event) -> bool:
        if event.HasField("model_called"):
            self._meter.count(event.model_called)
        elif begun := _begun(event):
            self._begin(begun, event)
        elif ended := _ended(event):
            self._end(ended)
        else:
            return False
        return True

    def _begin(self, key: Key, event: pb.Event) -> None:
        if key[0] == "question":  # asked once more, it is the same
            self._end(key)
        if self._many >= MOST:
            self.is_whole = False
            return
        known = pb.Event()
        known.CopyFrom(event)
        if event.HasField("agent_started"):
            known.agent_started.Clear()
        elif event.HasField("tool_executing") and self._size + event.ByteSize() > LARGE:
            known.tool_executing.ClearField("arguments")
        self._many += 1
        self._size += known.ByteSize()
        self._open.setdefault(key, []).append(known)

    def _end(self, key: Key) -> None:
        if key == ROOT:
            self.is_over = True
        elif same := self._open.get(key):  # sub-agents of one name may be at work at once: which of them, is the same
            self._many -= 1
            self._size -= same.pop().ByteSize()
            if not same:
                del self._open[key]


TEXT = {"agent_message", "agent_thinking"}
ROOT = ("agent", "")


def _seq(event: pb.Event) -> int:
    return event.seq


def _events(frames: bytes | bytearray) -> Iterator[pb.Event | None]:
    """Decode event frames; None for each that cannot be."""
    try:
        yield from events_in(frames)
    except DecodeError:
        begin = 0
        for end in ends(frames, 0):
            try:
                yield from events_in(frames[begin:end])
            except DecodeError:
                yield None
            begin = end


def _begun(event: pb.Event) -> Key | None:
    """Return what an event begins, if it is anything."""
    match event.WhichOneof("kind"):
        case "agent_started" if "/" in event.agent:
            return "agent", event.agent
        case "tool_executing":
            return "call", f"{event.agent} {event.tool_executing.call_id}"
        case "input_requested":
            return "question", event.input_requested.request_id
        case _:
            return None


def _ended(event: pb.Event) -> Key | None:
    """Return what one ends."""
    match event.WhichOneof("kind"):
        case "agent_completed" | "agent_failed" | "agent_cancelled":
            return ("agent", event.agent) if "/" in event.agent else ROOT
        case "tool_completed":
            return "call", f"{event.agent} {event.tool_completed.call_id}"
        case "input_answered":
            return "question", event.input_answered.request_id
        case _:
            return None
