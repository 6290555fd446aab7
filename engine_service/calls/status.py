"""What the engine says no with, as gRPC's callers get it."""

import grpc
from google.rpc.status_pb2 import Status
from grpc_status.rpc_status import to_status

from engine_service.runs.refusal import Refusal


def status_of(refusal: Refusal) -> grpc.Status:
    """Return what the caller gets."""
    status = Status(code=refusal.code.value, message=refusal.message)
    for detail in refusal.details:
        status.details.add().Pack(detail)
    return to_status(status)
