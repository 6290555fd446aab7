"""What engines say no with, as a gateway reads it: a sentence for a person, a reason and fields for programs."""

from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

M = TypeVar("M", bound=Message)


def sentence(error: grpc.aio.AioRpcError) -> str | None:
    """Return the engine's own sentence. A status that gRPC made by itself has none that a person should read."""
    return error.details() if spoke(error) else None


def code(error: grpc.aio.AioRpcError) -> grpc.StatusCode:
    """Return a status: an engine that ends cancels what it has yet to look at, which is no word of its own."""
    if error.code() is grpc.StatusCode.CANCELLED and not spoke(error):
        return grpc.StatusCode.UNAVAILABLE
    return error.code()


def spoke(error: grpc.aio.AioRpcError) -> bool:
    """Tell whether a status is the engine's own, and not one that gRPC made of a lost connection."""
    return _encoded(error) is not None


def reason(error: grpc.aio.AioRpcError) -> str:
    """Return an engine's reason for a refusal, as it says it to programs."""
    return str(_detail(error, ErrorInfo()).reason)


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """Return what is wrong with each field of a request."""
    return {wrong.field: wrong.description for wrong in _detail(error, BadRequest()).field_violations}


def _detail(error: grpc.aio.AioRpcError, detail: M) -> M:
    """Return a detail of that kind, empty if there is none."""
    status = Status.FromString(_encoded(error) or b"")
    next((each for each in status.details if each.Unpack(detail)), None)
    return detail


def _encoded(error: grpc.aio.AioRpcError) -> bytes | None:
    trailers: Any = error.trailing_metadata() or ()
    return next((trailer[1] for trailer in trailers if trailer[0] == "grpc-status-details-bin"), None)
