"""What the engine says no with: a code, a sentence for a person, and details for a program."""

import base64
from collections.abc import Mapping
from enum import IntEnum

from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from runwire.calling import NOWHERE

DOMAIN = "runwire"
MAX_VIOLATIONS, MAX_WORDS = 16, 100
"""Fields that are named as wrong, and characters of each name, and of why: what a call's status may say is bounded."""


class Code(IntEnum):
    """The codes that are used here. Their numbers are those of gRPC's statuses, and of close codes less 4000."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """A call that could not become a run, or asked for what isn't there."""

    def __init__(self, code: Code, message: str, *details: Message) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    @property
    def reason(self) -> str:
        """What it is, in a word."""
        return next((each.reason for each in self.details if isinstance(each, ErrorInfo)), self.code.name)


def invalid(violations: Mapping[str, str]) -> Refusal:
    """Say which fields of a request are wrong, and why."""
    details = BadRequest()
    for field, description in list(violations.items())[:MAX_VIOLATIONS]:
        details.field_violations.add(field=field[:MAX_WORDS], description=description[:MAX_WORDS])
    sentence = "; ".join(f"{wrong.field}: {wrong.description}" for wrong in details.field_violations)
    return Refusal(Code.INVALID_ARGUMENT, f"The request is not valid. {sentence}", details)


def exists(run_id: str) -> Refusal:
    """Say that a run's id is taken."""
    return Refusal(Code.ALREADY_EXISTS, f"There is a run with the id {run_id} already.")


def no_such_run(*, anywhere: bool = False) -> Refusal:
    """Say that a user has no such run, here or anywhere; that of another user does not exist."""
    return Refusal(Code.NOT_FOUND, "You have no such run.", *([_info(NOWHERE)] if anywhere else []))


def forbidden(message: str, reason: str) -> Refusal:
    """Say that a caller is known, and may not do this."""
    return Refusal(Code.PERMISSION_DENIED, message, _info(reason))


def gone() -> Refusal:
    """Say that there is nothing at a position of a run."""
    return Refusal(Code.OUT_OF_RANGE, "That part of the run is not there: not yet, or no longer.")


def resumed() -> Refusal:
    """Say that another caller reads a run."""
    return Refusal(Code.ABORTED, "The run goes on elsewhere: it was resumed.")


def run_elsewhere() -> Refusal:
    """Say that a run is on its way to another engine."""
    return unavailable("The run is at another engine. Try again in a moment.", "RUN_ELSEWHERE")


def too_many(message: str, reason: str, retry_after: float = 1.0) -> Refusal:
    """Say that a limit is reached, which one, and when to come back."""
    return Refusal(Code.RESOURCE_EXHAUSTED, message, _info(reason), _retry(retry_after))


def too_many_runs(most: int) -> Refusal:
    """Say that a user has as many runs as one may have."""
    return too_many(f"You have {most} runs already, which is as many as one may have.", "TOO_MANY_RUNS_OF_USER")


def unavailable(message: str, reason: str, retry_after: float = 1.0) -> Refusal:
    """Say that the engine cannot serve right now, and when to come back."""
    return Refusal(Code.UNAVAILABLE, message, _info(reason), _retry(retry_after))


def draining() -> Refusal:
    """Say that this engine is about to end."""
    return unavailable("The engine is shutting down. Try again.", "DRAINING")


def engine_away() -> Refusal:
    """Say that what was asked for is at an engine that cannot be asked."""
    return unavailable("The engine that has the run cannot be reached. Try again in a moment.", "ENGINE_AWAY")


def packed(refusal: Refusal) -> str:
    """Write a refusal down, as one engine tells another of it."""
    status = Status(code=refusal.code, message=refusal.message)
    for detail in refusal.details:
        status.details.add().Pack(detail)
    return base64.b64encode(status.SerializeToString()).decode()


def unpacked(written: str) -> Refusal:
    """Read a refusal from there."""
    status = Status.FromString(base64.b64decode(written))
    details: list[Message] = []
    for each in status.details:
        details += [detail for kind in (BadRequest, ErrorInfo, RetryInfo) if each.Unpack(detail := kind())]
    return Refusal(Code(status.code), status.message, *details)


def _info(reason: str) -> ErrorInfo:
    return ErrorInfo(reason=reason, domain=DOMAIN)


def _retry(seconds: float) -> RetryInfo:
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(int(seconds * 1000))
    return retry
