"""What a run has asked its user, and what becomes of it: decided here, whatever the agent's process does meanwhile."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import AnswerRequest

from engine_service.runs.refusal import Code, Refusal, forbidden, invalid, unavailable
from engine_service.schema import Schema, SchemaError
from engine_service.wire import LONGEST, MAX_OPEN, MAX_QUESTION, MAX_QUESTIONS, NANOSECONDS
from runwire import structs

MAX_ID = 64
"""Characters of a question's id."""
MAX_SETTLED = 256
"""Questions of one run of which it is still known what became of them."""

UNANSWERED = b""
"""What was said of a question that nobody answered in time."""

TOLD = {pb.INPUT_OUTCOME_ACCEPTED, pb.INPUT_OUTCOME_DECLINED}
"""What a person can say."""

ACCEPTED, APPROVAL = pb.INPUT_OUTCOME_ACCEPTED, pb.INPUT_REASON_TOOL_APPROVAL


class QuestionError(Exception):
    """What an agent's process sent is no question, or one too many."""


class Open(NamedTuple):
    """A question that waits for an answer."""

    request: pb.InputRequested
    schema: Schema | None
    timer: asyncio.TimerHandle
    size: int


class Questions:
    """One run's questions: those that are open, and what became of the newest others."""

    def __init__(self, tell: Callable[[pb.InputAnswered], None], earlier: Iterable[str] = ()) -> None:
        self._tell = tell
        self._earlier = set(earlier)  # those of a lost attempt, which this one may ask again
        self._open: dict[str, Open] = {}
        self._settled = OrderedDict[str, bytes]()  # what was answered, in short; nothing for what wasn't

    @property
    def open(self) -> list[pb.InputRequested]:
        """Those that wait for an answer, oldest first."""
        return [question.request for question in self._open.values()]

    def ask(self, body: bytes) -> None:
        """Take a question, as the event that asks it. Raises QuestionError."""
        event = _read(body)
        request = event.input_requested
        request_id = request.request_id
        if not 0 < len(request_id) <= MAX_ID or request_id in self._open or request_id in self._settled:
            raise QuestionError("a question whose id is none, or another's")
        together = len(body) + sum(question.size for question in self._open.values())
        if len(self._open) >= MAX_OPEN or len(body) > MAX_QUESTION or together > MAX_QUESTIONS:
            raise QuestionError("more, or larger, questions than a run may have open")
        try:
            schema = Schema(structs.struct(request.schema)) if request.HasField("schema") else None
        except SchemaError as error:
            raise QuestionError(str(error)) from error
        # By the clock that wrote both: ours may be set meanwhile.
        until, now = request.expires_at, event.time
        seconds = until.seconds - now.seconds + (until.nanos - now.nanos) / NANOSECONDS
        if not 0 < seconds <= LONGEST:
            raise QuestionError("a question that waits for no time, or for ever")
        self._earlier.discard(request_id)
        timer = asyncio.get_running_loop().call_later(seconds, self._expire, request_id)
        self._open[request_id] = Open(request, schema, timer, len(body))

    def answer(self, request: AnswerRequest, by: str, *, may_approve: bool = True) -> None:
        """Settle a question; said again, nothing changes. Raises a Refusal, and then nothing has changed either."""
        request_id, outcome, content = request.request_id, request.outcome, request.content
        if request_id in self._earlier:
            raise unavailable("It is about to be asked again. Try again in a moment.", "NOT_ASKED_AGAIN_YET")
        said = _digest(outcome, content)
        if (question := self._open.get(request_id)) is None:
            _check_again(self._settled.get(request_id), said)
            return
        if question.request.reason == pb.INPUT_REASON_TOOL_APPROVAL and not may_approve:
            raise forbidden("You may not approve of tools for others.", "NOT_FOR_OTHERS")
        if violations := _violations(question, outcome, content):
            raise invalid(violations)
        self._settle(request_id, said)
        self._tell(pb.InputAnswered(request_id=request_id, outcome=outcome, content=content, answered_by=by))

    def withdraw(self, body: bytes) -> None:
        """Hear that the agent's side has ended a question: it waits no longer. Raises QuestionError."""
        self._settle(_read(body).input_answered.request_id, UNANSWERED)

    def close(self) -> None:
        """Hear that the run ends: nothing that is open will be answered any more."""
        for request_id in (*self._open, *self._earlier):
            self._settle(request_id, UNANSWERED)
        self._tell = _nothing  # nothing holds the run any more

    def _expire(self, request_id: str) -> None:
        self._settle(request_id, UNANSWERED)
        self._tell(pb.InputAnswered(request_id=request_id, outcome=pb.INPUT_OUTCOME_EXPIRED))

    def _settle(self, request_id: str, said: bytes) -> None:
        question = self._open.pop(request_id, None)
        if question:
            question.timer.cancel()
        if question or request_id in self._earlier:
            self._earlier.discard(request_id)
            self._settled[request_id] = said
            if len(self._settled) > MAX_SETTLED:
                self._settled.popitem(last=False)


def _nothing(_: pb.InputAnswered) -> None:
    pass


def _check_again(before: bytes | None, said: bytes) -> None:
    """Look at an answer to a question that is not open. Raises a Refusal, unless it is what was said before."""
    if before is None:
        raise Refusal(Code.NOT_FOUND, "You have no such question.")
    if before == UNANSWERED:
        raise Refusal(Code.FAILED_PRECONDITION, "It is too late: nobody waits for that answer any more.")
    if before != said:
        raise Refusal(Code.ABORTED, "It was answered already, and otherwise.")


def _violations(question: Open, outcome: "pb.InputOutcome.ValueType", content: Struct) -> dict[str, str]:
    """Say what is wrong with an answer."""
    if outcome not in TOLD:
        return {"outcome": "must be INPUT_OUTCOME_ACCEPTED or INPUT_OUTCOME_DECLINED"}
    if content.fields and question.request.reason == APPROVAL:
        return {"content": "must be empty: what is approved is the call as it was asked for, or nothing"}
    if outcome == ACCEPTED:
        return question.schema.violations(structs.struct(content)) if question.schema else {}
    return {"content": "must be empty where nothing was accepted"} if content.fields else {}


def _digest(outcome: "pb.InputOutcome.ValueType", content: Struct) -> bytes:
    """Return what two answers have in common if they are the same."""
    said = pb.InputAnswered(outcome=outcome, content=content)
    return hashlib.sha256(said.SerializeToString(deterministic=True)).digest()


def _read(body: bytes) -> pb.Event:
    try:
        return pb.Event.FromString(body)
    except DecodeError as error:
        raise QuestionError("what is no event") from error
