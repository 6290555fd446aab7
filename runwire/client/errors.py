"""Why there are no more events, or why something was not done: a status, a sentence, and what programs want to know."""

import asyncio
from collections.abc import Iterator
from typing import Any, Self

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet

from runwire.client.events import Event

COME_BACK = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED}
"""Statuses after which it makes sense to come back; after all others the same would happen again."""
BROKEN = {grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED}
"""What gRPC may make of a connection that breaks, besides UNAVAILABLE. An engine that says so says why, too."""
DETAILS = 3
"""The field of a google.rpc.Status that has them."""
BAD_REQUEST, ERROR_INFO, RETRY_INFO = (f"google.rpc.{name}" for name in ("BadRequest", "ErrorInfo", "RetryInfo"))


class RunwireError(Exception):
    """Something was not done. `retry` tells whether the same may succeed when it is tried again."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        violations: dict[str, str] | None = None,
        retry_after: float = 0.0,
        is_certain: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        """Why, in an engine's word for programs, like `TOO_MANY_RUNS_OF_USER`; empty when it has none."""
        self.violations = violations or {}
        """What is wrong with each field of a request."""
        self.retry_after = retry_after
        """Seconds that an engine wants to be left alone for."""
        self.is_certain = is_certain
        """Whether nothing was done: an engine says so, or it was never asked."""
        self.retry = code in COME_BACK


class RefusedError(RunwireError):
    """A run never began, or a question was not answered: the status says why."""


class LostError(RunwireError):
    """A run began, and what becomes of it is not to be known any more."""

    @classmethod
    def of(cls, error: RunwireError) -> Self:
        """Say it of a run whose connection ended so."""
        violations, retry_after = error.violations, error.retry_after
        return cls(error.code, error.message, reason=error.reason, violations=violations, retry_after=retry_after)


class EndError(Exception):
    """A run whose result one wanted did not complete."""

    def __init__(self, end: Event | None) -> None:
        super().__init__(getattr(end, "message", "") or getattr(end, "reason", "") or "Its end was read before.")
        self.end = end
        """Its terminal event, `AgentFailed` or `AgentCancelled`; None when that was read before."""


def told(error: grpc.aio.AioRpcError) -> RefusedError:
    """Read what a call ended with."""
    trailers: Any = error.trailing_metadata() or ()  # of which not every grpcio that there is makes a dict
    encoded = next((trailer[1] for trailer in trailers if trailer[0] == "grpc-status-details-bin"), None)
    if not isinstance(encoded, bytes):  # no engine's word, but what gRPC makes of a connection
        code = grpc.StatusCode.UNAVAILABLE if error.code() in BROKEN else error.code()
        is_lost = code is grpc.StatusCode.UNAVAILABLE
        refused = RefusedError(code, "The connection was lost." if is_lost else error.details() or str(code))
        refused.retry = is_lost  # a message that is too large for gRPC will be so again
        return refused
    details = {kind.rpartition("/")[2]: detail for kind, detail in _details(encoded)}
    return RefusedError(
        error.code(),
        error.details() or "",
        reason=next((_text(part) for number, part in _fields(details.get(ERROR_INFO, b"")) if number == 1), ""),
        violations=dict(_violations(details.get(BAD_REQUEST, b""))),
        retry_after=next((_seconds(part) for _, part in _fields(details.get(RETRY_INFO, b""))), 0.0),
        is_certain=True,
    )


def closed() -> RefusedError:
    """Say that a client was closed meanwhile, or before."""
    return RefusedError(grpc.StatusCode.CANCELLED, "The client was closed.", is_certain=True)


def is_cancelling() -> bool:
    """Tell whether this task is cancelled: otherwise what was cancelled is the call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _details(encoded: bytes) -> Iterator[tuple[str, bytes]]:
    """Find the details of a google.rpc.Status, and their kinds: one more package for three messages is too much."""
    for number, detail in _fields(encoded):
        if number == DETAILS:
            packed = dict(_fields(detail))
            yield _text(packed.get(1, b"")), packed.get(2, b"")


def _violations(encoded: bytes) -> Iterator[tuple[str, str]]:
    for _, violation in _fields(encoded):
        packed = dict(_fields(violation))
        yield _text(packed.get(1, b"")), _text(packed.get(2, b""))


def _fields(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Find a message's fields that are bytes, whatever message it is."""
    found: Any = UnknownFieldSet(Empty.FromString(encoded))
    for field in found:
        if isinstance(field.data, bytes):
            yield field.field_number, field.data


def _text(encoded: bytes) -> str:
    return encoded.decode(errors="replace")


def _seconds(encoded: bytes) -> float:
    return Duration.FromString(encoded).ToTimedelta().total_seconds()
