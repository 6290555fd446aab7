"""Sub-agents that somebody else runs: a framework. Each is begun once, and is over once."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from runwire.v1 import events_pb2 as pb

from engine_service.runtime.asking import Asking
from engine_service.runtime.event_writer import EventWriter
from engine_service.runtime.plain import struct, text
from engine_service.runtime.tool_calls import MAX_NAME, since

if TYPE_CHECKING:
    from engine_service.runtime.agent import RunContext


OVER = "Its agent is done."


class SubAgents:
    """One agent's own, some of which may be at work at once. Each has a path below its agent's."""

    def __init__(self, path: str, writer: EventWriter, asking: Asking, make: Callable[[str], "RunContext"]) -> None:
        self._path = path
        self._writer = writer
        self._asking = asking
        self._make = make
        self._open: dict[str, tuple[RunContext, int]] = {}

    def begin(self, name: str, input: str = "", *, another: bool = False) -> "RunContext":
        """Tell that a sub-agent begins, and return its context.

        One that is at work already is told no second time, unless this is another of that name.
        """
        base = path = f"{self._path}/{text(name).replace('/', '-')[:MAX_NAME] or 'agent'}"
        number = 1
        while another and path in self._open:
            number += 1
            path = f"{base}-{number}"
        if path not in self._open:
            self._open[path] = self._make(path), time.monotonic_ns()
            self._writer.put(path, agent_started=pb.AgentStarted(input=text(input)))
        return self._open[path][0]

    def end(self, context: "RunContext", output: str = "", data: Mapping[str, Any] | None = None) -> None:
        """Tell that one is done."""
        if context.agent in self._open:
            started = self._open[context.agent][1]
            completed = pb.AgentCompleted(
                output=text(output), data=struct(data or {}), elapsed=since(started), usage=context.usage
            )
            self._over(context, pb.Event(agent=context.agent, agent_completed=completed))

    def finish(self) -> None:
        """Tell of all that are still at work that they are done: whom they were part of is."""
        for context, _ in reversed(tuple(self._open.values())):
            self.end(context)

    def close(self, error: str) -> None:
        """Tell of all that are still at work that they are over, and why."""
        for context, _ in reversed(tuple(self._open.values())):
            failed = pb.AgentFailed(reason=pb.FAILURE_REASON_AGENT_ERROR, message=error, usage=context.usage)
            self._over(context, pb.Event(agent=context.agent, agent_failed=failed))

    def _over(self, context: "RunContext", end: pb.Event) -> None:
        context.sub_agents.close(OVER)
        context.tool_calls.close(OVER)
        self._asking.end(context.questions)
        self._writer.put_event(end, bounded=False)
        del self._open[context.agent]
