"""The engine, as the gateway calls it: bytes come back, and stay bytes."""

from collections.abc import Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from runwire.v1 import engine_pb2 as pb
from runwire.v1.gateway_pb2 import ClientFrame

T = TypeVar("T")
SERVICE = pb.DESCRIPTOR.services_by_name["EngineService"].full_name

Open = grpc.aio.UnaryStreamMultiCallable[T, bytes]
Stream = grpc.aio.UnaryStreamCall[Any, bytes]


class Engine:
    """Opens streams. Keeps nothing about them."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._run: Open[pb.RunRequest] = channel.unary_stream(f"/{SERVICE}/Run", pb.RunRequest.SerializeToString)
        self._resume: Open[pb.ResumeRequest] = channel.unary_stream(
            f"/{SERVICE}/Resume", pb.ResumeRequest.SerializeToString
        )
        self._health: Any = HealthStub(channel)

    def open(self, frame: ClientFrame) -> Stream:
        """Open the stream that a browser's first frame asks for, in the browser's name."""
        metadata = _metadata(frame)
        if frame.HasField("run"):
            return self._run(frame.run, metadata=metadata)
        return self._resume(frame.resume, metadata=metadata)

    async def is_serving(self) -> bool:
        """Tell whether the engine answers, and takes runs."""
        try:
            answer = await self._health.Check(HealthCheckRequest(service=SERVICE), timeout=1)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == HealthCheckResponse.SERVING)


def _metadata(frame: ClientFrame) -> Sequence[tuple[str, str]]:
    metadata = {"traceparent": frame.traceparent}
    if frame.access_token:
        metadata["authorization"] = f"Bearer {frame.access_token}"
    return tuple((key, value) for key, value in metadata.items() if value)
