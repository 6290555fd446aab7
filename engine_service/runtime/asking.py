"""Questions to a run's user, on the agent's side: asked, waited for, and told of when they are settled."""

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from google.protobuf.struct_pb2 import Struct
from runwire.v1 import events_pb2 as pb

from engine_service.clock import Clock
from engine_service.runtime.event_writer import EventWriter
from engine_service.runtime.open_calls import AROUND, OpenCalls
from engine_service.runtime.plain import struct, text
from engine_service.runtime.tool_calls import MAX_NAME, ToolCalls
from engine_service.schema import Schema
from engine_service.wire import ASKED, LONGEST, MAX_OPEN, MAX_QUESTION, MAX_QUESTIONS, NANOSECONDS, WAITING, WITHDRAWN
from runwire import structs

ROOM = 256
"""Bytes that an event may have beside its question and its agent's path."""

Outcome = Literal["accepted", "declined", "expired"]
OUTCOMES: dict["pb.InputOutcome.ValueType", Outcome] = {
    pb.INPUT_OUTCOME_ACCEPTED: "accepted",
    pb.INPUT_OUTCOME_DECLINED: "declined",
    pb.INPUT_OUTCOME_EXPIRED: "expired",
}


class Reply(NamedTuple):
    """What became of a question."""

    outcome: Outcome
    content: Mapping[str, Any] = {}

    @property
    def is_accepted(self) -> bool:
        """Whether the user answered, or approved."""
        return self.outcome == "accepted"


class Question(NamedTuple):
    """One that is open."""

    asker: "Questions"
    calls: frozenset[int]
    """The calls of tools that wait for it; of those that may, one, where it is not known which."""
    is_known: bool
    """Whether it is."""
    size: int
    waiter: asyncio.Future[Reply]


class Asking:
    """One run's questions, and its sub-agents'. While it does nothing but wait for them, its time stands still."""

    def __init__(
        self,
        writer: EventWriter,
        calls: OpenCalls,
        clock: Clock,
        timeout: float,
        on_clock: Callable[[Clock], None] | None = None,
    ) -> None:
        self._writer = writer
        self._calls = calls
        self._clock = clock
        self.timeout = timeout
        """Seconds that a question waits that doesn't say."""
        self._on_clock = on_clock
        self._room = asyncio.Semaphore(MAX_OPEN)
        self._open: dict[str, Question] = {}
        self._earlier: dict[bytes, list[pb.Event]] = {}
        self._is_waiting = False
        self._is_over = False
        calls.on_change = self._look

    def remember(self, events: Iterable[pb.Event]) -> None:
        """Hear what was asked in the attempt before, and not answered: asked again, it is the same question."""
        for event in events:
            self._earlier.setdefault(_like(event.agent, event.input_requested), []).append(event)

    def forget_earlier(self) -> None:
        """Hear that the run is past the point at which it could ask those again."""
        earlier, self._earlier = self._earlier, {}
        for event in (each for events in earlier.values() for each in events):
            self._tell_withdrawn(event.agent, event.input_requested.request_id)

    async def ask(
        self,
        asker: "Questions",
        request: pb.InputRequested,
        seconds: float | None,
        calls: frozenset[int],
        *,
        is_known: bool = True,
    ) -> Reply:
        """Ask, and wait until the engine has settled it. Where as many are open as may be, wait for room first."""
        seconds = self.timeout if seconds is None else seconds
        if not 0 < seconds <= LONGEST:
            raise ValueError("a question waits for some time, and for a year at most")
        size = request.ByteSize() + len(asker.path) + ROOM
        if size > MAX_QUESTION:
            raise ValueError(f"a question has at most {MAX_QUESTION} bytes, with its schema or arguments")
        async with self._room:
            if size + sum(question.size for question in self._open.values()) > MAX_QUESTIONS:
                raise ValueError(f"the questions that are open have at most {MAX_QUESTIONS} bytes together")
            known = self._earlier.get(_like(asker.path, request)) if self._earlier else None
            request.request_id = known.pop(0).input_requested.request_id if known else uuid.uuid4().hex
            request.expires_at.FromNanoseconds(time.time_ns() + int(seconds * NANOSECONDS))
            self._writer.put(asker.path, tag=ASKED, input_requested=request)
            waiter: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            self._open[request.request_id] = Question(asker, calls, is_known, size, waiter)
            self._look()
            try:
                await self._writer.drain()
                return await waiter
            finally:
                self._withdraw(request.request_id)

    @property
    def open_calls(self) -> frozenset[int]:
        """The calls of tools that go on."""
        return frozenset(self._calls.open)

    def hear(self, body: bytes) -> None:
        """Hear how the engine has settled a question, and tell it."""
        answered = pb.InputAnswered.FromString(body)
        if question := self._open.pop(answered.request_id, None):
            with suppress(RuntimeError):  # the run has ended meanwhile
                self._writer.put(question.asker.path, bounded=False, input_answered=answered)
            self._look()
            _settle(question, Reply(OUTCOMES[answered.outcome], structs.struct(answered.content)))

    def stop(self) -> None:
        """Hear that the run is told to stop: its terminal event ends all questions."""
        self._is_over = True

    def end(self, asker: "Questions") -> None:
        """Hear that an agent ends: what it still asks, nobody waits for."""
        for request_id, question in tuple(self._open.items()):
            if question.asker is asker:
                self._withdraw(request_id)

    def _withdraw(self, request_id: str) -> None:
        """End a question that nobody waits for any more."""
        if (question := self._open.pop(request_id, None)) and not self._is_over:
            with suppress(RuntimeError):  # the run has ended meanwhile
                self._tell_withdrawn(question.asker.path, request_id)
            self._look()
            _settle(question, Reply("expired"))

    def _tell_withdrawn(self, path: str, request_id: str) -> None:
        expired = pb.InputAnswered(request_id=request_id, outcome=pb.INPUT_OUTCOME_EXPIRED)
        self._writer.put(path, tag=WITHDRAWN, bounded=False, input_answered=expired)

    def _look(self) -> None:
        """See whether anything is done but waiting for answers, and tell when that changes."""
        questions, going_on = tuple(self._open.items()), frozenset(self._calls.open)
        for request_id, question in questions:
            if not question.is_known and question.calls and not question.calls & going_on:
                self._withdraw(request_id)  # whatever asked is over, and looks again
                return
        known = [question.calls for _, question in questions if question.is_known]
        unknown = sum(1 for _, question in questions if not question.is_known and question.calls)
        left = going_on.difference(*known)
        is_waiting = bool(known or unknown) and len(left) <= unknown
        if is_waiting == self._is_waiting:
            return
        self._is_waiting = is_waiting
        if is_waiting:
            self._clock.stand_still(time.monotonic())
        else:
            self._clock.go_on(time.monotonic())
        self._writer.tell(WAITING, b"\1" if is_waiting else b"")
        if self._on_clock:
            self._on_clock(self._clock)


class Questions:
    """Asks in the name of one agent."""

    def __init__(self, path: str, asking: Asking, tool_calls: ToolCalls) -> None:
        self.path = path
        self._asking = asking
        self._tool_calls = tool_calls

    async def ask(
        self,
        message: str,
        schema: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - nobody waits here for the user alone
        *,
        is_halted: bool = False,
    ) -> Reply:
        """Ask for what the schema wants. `is_halted` says that no tool goes on meanwhile, whatever is open."""
        around = AROUND.get()
        request = pb.InputRequested(
            reason=pb.INPUT_REASON_QUESTION,
            message=_sentence(message),
            call_id=around[-1].call_id if around else "",
            schema=None if schema is None else _travelling(schema),
        )
        return await self._asking.ask(self, request, timeout, self._halted(is_halted=is_halted))

    async def ask_for_a_tool(self, message: str, schema: Mapping[str, Any] | None, most: float | None) -> Reply:
        """Ask in the middle of a call of this agent's, whichever that is; it waits for so many seconds at most."""
        request = pb.InputRequested(
            reason=pb.INPUT_REASON_QUESTION,
            message=_sentence(message),
            schema=None if schema is None else _travelling(schema),
        )
        seconds = min(most or math.inf, self._asking.timeout)
        return await self._asking.ask(self, request, seconds, self._tool_calls.open, is_known=False)

    async def approval(
        self, tool: str, arguments: Mapping[str, Any], call_id: str, message: str = "", *, is_halted: bool = False
    ) -> Reply:
        """Ask whether a tool may be called."""
        request = pb.InputRequested(
            reason=pb.INPUT_REASON_TOOL_APPROVAL,
            message=_sentence(message or f"May {tool} be called?"),
            call_id=self._tool_calls.told(call_id),
            proposed=struct(arguments),
            tool=text(tool)[:MAX_NAME],
        )
        calls = self._halted(is_halted=is_halted) | self._tool_calls.tokens(call_id)
        return await self._asking.ask(self, request, None, calls)

    def _halted(self, *, is_halted: bool) -> frozenset[int]:
        """Return the calls of tools that wait meanwhile: those that we are in, or all that are open."""
        return self._asking.open_calls if is_halted else frozenset(call.token for call in AROUND.get())


def _like(path: str, request: pb.InputRequested) -> bytes:
    """Return what a question has in common with itself when it is asked again."""
    like = pb.InputRequested()
    like.CopyFrom(request)
    for field in ("request_id", "call_id", "expires_at"):
        like.ClearField(field)
    return path.encode() + b"\0" + like.SerializeToString(deterministic=True)


def _travelling(schema: Mapping[str, Any]) -> Struct:
    """Return a schema as it travels. Raises SchemaError, also where it would be another one then."""
    document = struct(Schema.of(schema).document)
    Schema(structs.struct(document))
    return document


def _sentence(message: str) -> str:
    """Return what is asked, as a sentence that there is."""
    if not message:
        raise ValueError("a question needs a message")
    return text(message)


def _settle(question: Question, reply: Reply) -> None:
    """Give the reply to whoever waits, on whatever loop that is."""

    def settle() -> None:
        if not question.waiter.done():
            question.waiter.set_result(reply)

    with suppress(RuntimeError):  # its loop is closed
        question.waiter.get_loop().call_soon_threadsafe(settle)
