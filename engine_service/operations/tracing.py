"""Spans of runs, made in the engine from what runs say: nothing of this is in an agent's process."""

import json
import time
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from runwire.v1 import events_pb2 as pb

from engine_service.operations import semantics as names
from engine_service.wire import NANOSECONDS, Work, events_in, word_of
from runwire.service.tracing import Attributes, Tracing, below, traceparent_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

MOST = 1000
"""Spans of one run. Those beyond are counted, and not made."""
MOST_OPEN = 256
"""Of these, spans that have not ended."""
MAX_NAME, MAX_PATH = 128, 1024
"""Characters of a name that an agent chose, and of an agent's path."""
MAX_CONTENT = 16 * 1024
"""Bytes of a tool's arguments, or of its result, that are worth writing down: what is kept of them is less."""
TOO_MUCH = "(not written down)"
TEXT = {"agent_message", "agent_thinking"}
IDS = {
    "tool_executing": "call_id",
    "tool_completed": "call_id",
    "input_requested": "request_id",
    "input_answered": "request_id",
}
"""By what events are told from others of their kind."""
Key = tuple[str, str]


class Traces:
    """Follows runs."""

    def __init__(self, tracing: Tracing, *, with_content: bool) -> None:
        self._tracer = tracing.tracer
        self._with_content = with_content

    def follow(self, work: Work) -> "RunTrace":
        """Follow a run that is about to begin."""
        return RunTrace(self._tracer, work, with_content=self._with_content)


class RunTrace:
    """The spans of one run."""

    def __init__(self, tracer: "Tracer", work: Work, *, with_content: bool) -> None:
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context  # noqa: PLC0415

        self._kinds, self._failed, self._in = SpanKind, StatusCode.ERROR, set_span_in_context
        self._tracer = tracer
        self._with_content = with_content
        self._open: dict[Key, Span] = {}
        self._many = self._dropped = self._events = 0
        about: dict[str, Any] = {
            names.OPERATION: names.AGENT,
            names.AGENT_NAME: work.agent,
            names.RUN_ID: work.run_id,
            names.USER_ID: work.user_id,
        }
        more = {
            names.CONVERSATION: work.thread_id,
            names.SERVICE: work.service,
            names.ATTEMPT: work.recovery.attempt if work.recovery else 0,
        }
        about |= {name: value for name, value in more.items() if value}
        if with_content:
            about[names.INPUT_MESSAGES] = _messages("user", work.input)
        self._began = self._now = time.time_ns()
        self._root = tracer.start_span(
            f"{names.AGENT} {work.agent}",
            below(work.traceparent),
            kind=SpanKind.INTERNAL,
            attributes=about,
            start_time=self._began,
        )
        self._name = work.agent
        self.traceparent = traceparent_of(self._root)
        """What the spans of whatever the agent uses are below."""
        self._is_told = self._root.is_recording()

    def began(self) -> None:
        """Hear that its agent is at work."""

    def said(self, events: bytes, many: int) -> None:
        """Make spans of what happened."""
        self._events += many
        if not self._is_told:
            return
        self._now = time.time_ns()
        try:
            happened = events_in(events)
        except DecodeError:  # an agent's process may send what is none: its caller hears of that
            self._dropped += many
            return
        for event in happened:
            kind = event.WhichOneof("kind")
            if kind not in TEXT:  # as most are
                self._take(event, str(kind))

    def ended(self, event: pb.Event) -> None:
        """End every span there is."""
        self._now = time.time_ns()
        self._finish(self._root, event)
        self._close(self._time(event))

    def left(self, why: str, usage: pb.Usage | None = None) -> None:  # noqa: ARG002 - the next attempt tells
        """End every span there is: nothing more will be known."""
        self._root.set_attribute(names.ENDING, why)
        self._close(time.time_ns())

    def _close(self, at: int) -> None:
        for span in reversed(self._open.values()):
            span.end(at)
        self._open.clear()
        self._root.set_attribute(names.EVENTS, self._events)
        if self._dropped:
            self._root.set_attribute(names.DROPPED, self._dropped)
        self._root.end()

    def _take(self, event: pb.Event, kind: str) -> None:
        path = event.agent
        if len(path) > MAX_PATH or len(_id(event, kind)) > MAX_NAME:
            self._dropped += 1
            return
        match kind:
            case "agent_started" if path != self._name:
                self._begin_agent(event)
            case "tool_executing":
                self._begin_tool(event)
            case "tool_completed":
                self._end_tool(event)
            case "input_requested":
                self._begin_question(event)
            case "input_answered":
                self._end_question(event)
            case "model_called":
                self._model(event)
            case "agent_completed" | "agent_failed" | "agent_cancelled" if path != self._name:
                if span := self._open.pop(("agent", path), None):
                    self._finish(span, event)
                    span.end(self._time(event))
            case _:
                pass

    def _begin_agent(self, event: pb.Event) -> None:
        name = event.agent.rpartition("/")[2]
        about: dict[str, Any] = {names.OPERATION: names.AGENT, names.AGENT_NAME: name}
        if self._with_content:
            about[names.INPUT_MESSAGES] = _messages("user", event.agent_started.input)
        parent = self._agent(event.agent.rpartition("/")[0])
        self._begin(("agent", event.agent), f"{names.AGENT} {name}", parent, event, about)

    def _begin_tool(self, event: pb.Event) -> None:
        call = event.tool_executing
        about = {names.OPERATION: names.TOOL, names.TOOL_NAME: call.tool[:MAX_NAME], names.CALL_ID: call.call_id}
        if self._with_content:
            about[names.ARGUMENTS] = _json(call.arguments)
        self._begin(("call", f"{event.agent} {call.call_id}"), f"{names.TOOL} {call.tool}", None, event, about)

    def _end_tool(self, event: pb.Event) -> None:
        call = event.tool_completed
        if span := self._open.pop(("call", f"{event.agent} {call.call_id}"), None):
            if call.WhichOneof("outcome") == "error":
                span.set_attribute(names.ERROR, names.TOOL_ERROR)
                span.set_status(self._failed)
            if self._with_content:
                span.set_attribute(names.RESULT, call.error or _json(call.result))
            span.end(self._time(event))

    def _begin_question(self, event: pb.Event) -> None:
        asked = event.input_requested
        reason = word_of(pb.InputReason, asked.reason)
        about = {names.OPERATION: names.ASK, names.REASON: reason}
        if asked.tool:
            about |= {names.TOOL_NAME: asked.tool[:MAX_NAME], names.CALL_ID: asked.call_id[:MAX_NAME]}
        self._begin(("question", asked.request_id), f"{names.ASK} {reason}", None, event, about)

    def _end_question(self, event: pb.Event) -> None:
        if span := self._open.pop(("question", event.input_answered.request_id), None):
            span.set_attribute(names.OUTCOME, word_of(pb.InputOutcome, event.input_answered.outcome))
            span.end(self._time(event))

    def _model(self, event: pb.Event) -> None:
        called = event.model_called
        about: dict[str, Any] = {
            names.OPERATION: names.CHAT,
            names.MODEL: called.model[:MAX_NAME],
            names.INPUT_TOKENS: called.input_tokens,
            names.OUTPUT_TOKENS: called.output_tokens,
        }
        if called.cached_input_tokens:
            about[names.CACHED_TOKENS] = called.cached_input_tokens
        if called.HasField("to_first_word"):
            about[names.FIRST_WORD] = called.to_first_word.seconds + called.to_first_word.nanos / NANOSECONDS
        began = self._within(_nanoseconds(event) - called.elapsed.seconds * NANOSECONDS - called.elapsed.nanos)
        if span := self._made(f"{names.CHAT} {called.model}", self._agent(event.agent), began, about, is_call=True):
            span.end(self._time(event))

    def _begin(self, key: Key, name: str, parent: "Span | None", event: pb.Event, about: Attributes) -> None:
        if len(self._open) >= MOST_OPEN or key in self._open:  # sub-agents of one path may be at work at once
            self._dropped += 1
        elif span := self._made(name, parent or self._agent(event.agent), self._time(event), about):
            self._open[key] = span

    def _made(
        self, name: str, parent: "Span", began: int, about: Attributes, *, is_call: bool = False
    ) -> "Span | None":
        if self._many >= MOST:
            self._dropped += 1
            return None
        self._many += 1
        kind = self._kinds.CLIENT if is_call else self._kinds.INTERNAL
        return self._tracer.start_span(name[:MAX_NAME], self._in(parent), kind=kind, attributes=about, start_time=began)

    def _time(self, event: pb.Event) -> int:
        """Return when something happened. An agent's process says so: it is believed as far as that can be."""
        return self._within(_nanoseconds(event))

    def _within(self, moment: int) -> int:
        return min(max(moment, self._began), self._now)

    def _agent(self, path: str) -> "Span":
        """Return the span of an agent, or of the nearest above it that has one."""
        while path:
            if span := self._open.get(("agent", path)):
                return span
            path = path.rpartition("/")[0]
        return self._root

    def _finish(self, span: "Span", event: pb.Event) -> None:
        kind = event.WhichOneof("kind")
        ending = str(kind).removeprefix("agent_")
        usage: pb.Usage = getattr(event, str(kind)).usage
        if kind == "agent_failed":
            ending = word_of(pb.FailureReason, event.agent_failed.reason)
            span.set_attribute(names.ERROR, ending)
            span.set_status(self._failed)
        elif kind == "agent_completed" and self._with_content:
            span.set_attribute(names.OUTPUT_MESSAGES, _messages("assistant", event.agent_completed.output))
        span.set_attribute(names.ENDING, ending)
        if usage.models:
            span.set_attribute(names.INPUT_TOKENS, sum(each.input_tokens for each in usage.models))
            span.set_attribute(names.OUTPUT_TOKENS, sum(each.output_tokens for each in usage.models))


def _nanoseconds(event: pb.Event) -> int:
    """Return when an event says that it happened, whatever that is."""
    return event.time.seconds * NANOSECONDS + event.time.nanos


def _id(event: pb.Event, kind: str) -> str:
    """Return by what an event is told from others of its kind, if by anything."""
    return str(getattr(getattr(event, kind), IDS[kind])) if kind in IDS else ""


def _json(message: Message) -> str:
    if message.ByteSize() > MAX_CONTENT:
        return TOO_MUCH
    try:
        return json.dumps(MessageToDict(message), sort_keys=True)
    except ValueError:  # a number that JSON does not know
        return TOO_MUCH


def _messages(role: str, text: str) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}])
