"""Calls of tools, as an agent tells of them: each is begun once, and is over once."""

import time
from collections.abc import Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from runwire.v1 import events_pb2 as pb

from engine_service.runtime.event_writer import EventWriter
from engine_service.runtime.open_calls import OpenCalls
from engine_service.runtime.plain import struct, text, value

MAX_NAME = 256
"""Characters of a tool's name, and of a call's id."""


class ToolCalls:
    """One agent's calls, some of which may be open at once. Their ids are its own, or the model's."""

    def __init__(self, path: str, writer: EventWriter, calls: OpenCalls) -> None:
        self._path = path
        self._writer = writer
        self._calls = calls
        self._open: dict[str, tuple[pb.ToolExecuting, int, int]] = {}  # each with when it began, and its token
        self._told: dict[str, int] = {}

    def begin(self, tool: str, arguments: Mapping[str, Any], call_id: str = "") -> str:
        """Tell that a tool is called, and return the call's id. One that is open already is told no second time."""
        key = call_id or self._calls.name()
        if key not in self._open:
            call = pb.ToolExecuting(call_id=self.told(key), tool=text(tool)[:MAX_NAME], arguments=struct(arguments))
            self._told[key] = self._told.get(key, 0) + 1
            self._writer.put(self._path, tool_executing=call)
            self._open[key] = call, time.monotonic_ns(), self._calls.begin()
        return key

    def told(self, call_id: str) -> str:
        """Return a call's id as it is told, or will be: a model may choose the same for two."""
        if not call_id:
            return ""
        if call_id in self._open:
            return self._open[call_id][0].call_id
        again = self._told.get(call_id, 0) + 1
        return self._calls.told(text(call_id)[:MAX_NAME] + (f"#{again}" if again > 1 else ""))

    @property
    def open(self) -> frozenset[int]:
        """By what those that are open are known to all agents of a run."""
        return frozenset(token for *_, token in self._open.values())

    def tokens(self, call_id: str) -> frozenset[int]:
        """Return by what an open call is known to all agents of a run; nothing if there is none of that id."""
        return frozenset({self._open[call_id][2]} if call_id in self._open else ())

    def find(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """Return the id of an open call that is known by what is called; nothing if there is none."""
        like = pb.ToolExecuting(tool=text(tool)[:MAX_NAME], arguments=struct(arguments))
        for key, (call, *_) in self._open.items():
            if (call.tool, call.arguments) == (like.tool, like.arguments):
                return key
        return ""

    def end(self, call_id: str, result: Any) -> None:
        """Tell that a call is over, and what it returned."""
        if call_id in self._open:
            self._tell(call_id, result=value(result))
            del self._open[call_id]

    def fail(self, call_id: str, error: str) -> None:
        """Tell that a call is over, and why it returned nothing: a sentence for a person, which is always told."""
        if call_id in self._open:
            self._tell(call_id, bounded=False, error=error)
            del self._open[call_id]

    def close(self, error: str) -> None:
        """Tell that all that are open are over."""
        for call_id in tuple(self._open):
            self.fail(call_id, error)

    def _tell(self, call_id: str, *, bounded: bool = True, **outcome: Any) -> None:
        call, started, token = self._open[call_id]
        completed = pb.ToolCompleted(call_id=call.call_id, tool=call.tool, elapsed=since(started), **outcome)
        self._writer.put(self._path, bounded=bounded, tool_completed=completed)
        self._calls.end(token)


def since(started: int) -> Duration:
    """Return how long it is since a moment of the monotonic clock."""
    elapsed = Duration()
    elapsed.FromNanoseconds(time.monotonic_ns() - started)
    return elapsed
