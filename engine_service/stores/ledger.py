"""What follows from a run's events, up to one of them: what has begun and not ended, and what models took."""

from collections.abc import Iterable

from runwire.v1 import events_pb2 as pb

from engine_service.usage import Meter
from engine_service.wire import NOTE, USAGE, FrameSplitter, event_frame, events_in, frame

MOST = 1000
"""Calls, sub-agents and questions that one run may have open, to be known."""
LARGE = 16 * 1024
"""Bytes of what a tool was called with, up to which that is known."""

Key = tuple[str, str]


class Ledger:
    """One run's."""

    def __init__(self, before: bytes = b"", at: int = 0) -> None:
        """Begin, or go on from what was written down at a position."""
        self.at = at
        """The number of the newest event that was taken."""
        splitter = FrameSplitter(0)
        self._open = {_begun(event): event for event in events_in(splitter.cut(before))}
        self._meter = Meter(None, splitter.usage)
        self.is_whole = not splitter.notes
        """Whether all that is open is known."""
        self.is_over = False
        """Whether the run has ended."""

    @property
    def usage(self) -> bytes:
        """What calls to models took."""
        return usage.SerializeToString() if (usage := self._meter.usage) else b""

    @property
    def open(self) -> bytes:
        """The events that have begun what did not end, in their order."""
        return b"".join(event_frame(event) for event in self._open.values())

    def take(self, events: Iterable[pb.Event]) -> None:
        """Take what follows. What was taken before is left out."""
        for event in events:
            if event.seq <= self.at:
                continue
            self.at = event.seq
            kind = event.WhichOneof("kind")
            if kind in TEXT:
                continue  # most are
            if kind == "model_called":
                self._meter.count(event.model_called)
            elif begun := _begun(event):
                self._begin(begun, event)
            elif ended := _ended(event):
                self._open.pop(ended, None)
                self.is_over |= ended == ROOT

    def written(self) -> bytes:
        """Write it down."""
        usage = frame(USAGE, self.usage) if self.usage else b""
        return usage + self.open + (b"" if self.is_whole else frame(NOTE, b"there is more"))

    def _begin(self, key: Key, event: pb.Event) -> None:
        if len(self._open) >= MOST:
            self.is_whole = False
            return
        known = pb.Event()
        known.CopyFrom(event)
        if event.HasField("agent_started"):
            known.agent_started.Clear()
        elif event.HasField("tool_executing") and event.ByteSize() > LARGE:
            known.tool_executing.ClearField("arguments")
        self._open[key] = known


TEXT = {"agent_message", "agent_thinking"}
ROOT = ("agent", "")


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
