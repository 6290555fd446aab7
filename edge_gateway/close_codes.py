"""Every gRPC status to one close code. What a browser concludes from it: come back, or don't."""

from typing import NamedTuple

import grpc

ENDED = 1000
RESTARTING = 1012
FIRST = 4000
"""A gRPC status `n` closes with `FIRST + n`."""

MAX_REASON = 123
"""Bytes of a reason in a close frame, by RFC 6455."""

SENTENCES = {
    grpc.StatusCode.OK: "",
    grpc.StatusCode.CANCELLED: "The run was cancelled.",
    grpc.StatusCode.UNKNOWN: "Something went wrong.",
    grpc.StatusCode.INVALID_ARGUMENT: "That cannot be understood.",
    grpc.StatusCode.DEADLINE_EXCEEDED: "That took too long.",
    grpc.StatusCode.NOT_FOUND: "There is no such agent or run.",
    grpc.StatusCode.ALREADY_EXISTS: "There is such a run already.",
    grpc.StatusCode.PERMISSION_DENIED: "That is not allowed.",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "That is more than there is room for. Try again in a moment.",
    grpc.StatusCode.FAILED_PRECONDITION: "That is not possible now.",
    grpc.StatusCode.ABORTED: "The run goes on elsewhere.",
    grpc.StatusCode.OUT_OF_RANGE: "That part of the run is not there.",
    grpc.StatusCode.UNIMPLEMENTED: "That is not possible here.",
    grpc.StatusCode.INTERNAL: "Something went wrong.",
    grpc.StatusCode.UNAVAILABLE: "The engine cannot be reached. Try again in a moment.",
    grpc.StatusCode.DATA_LOSS: "Something was lost.",
    grpc.StatusCode.UNAUTHENTICATED: "You are not signed in, or your sign-in has expired.",
}


class Closing(NamedTuple):
    """How a socket is closed."""

    code: int
    reason: str


def closing(status: grpc.StatusCode, sentence: str | None = None) -> Closing:
    """Return how a socket is closed for a status, with the engine's own sentence if it had one."""
    if status is grpc.StatusCode.OK:
        return Closing(ENDED, "")
    return Closing(FIRST + status.value[0], shortened(sentence or SENTENCES[status]))


def shortened(sentence: str) -> str:
    """Cut a sentence to what fits into a close frame, never inside a character."""
    encoded = sentence.encode(errors="replace")
    if len(encoded) <= MAX_REASON:
        return encoded.decode()
    return encoded[: MAX_REASON - 3].decode(errors="ignore") + "…"
