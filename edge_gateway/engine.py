"""The engines, as the gateway calls them: bytes come back, and stay bytes."""

import asyncio
import re
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

REACH = 1.5
"""Seconds until an engine that cannot be reached is given up. A browser hears of it within two."""
BACKENDS = 16
"""Engines behind one name that are asked for a run."""
CHECK = 1.0
"""Seconds that an engine has to answer how it is."""

OPTIONS = (
    ("grpc.lb_policy_name", "round_robin"),  # among the addresses of a DNS name
    ("grpc.max_receive_message_length", -1),  # the engine bounds what it sends
    # A window of 64 KiB and no more. One that grows would hold megabytes for a browser that doesn't read; and what is
    # under way when a gateway is lost has to be less than what the engine keeps of a resumable run.
    ("grpc.http2.bdp_probe", 0),
    # An engine that comes back is found within two seconds; gRPC's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # An engine that is gone without a word is noticed. The engine allows as many pings as this.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)

SENDABLE = re.compile(r"[ -~]{1,65536}")
"""What metadata can carry."""
UNSENDABLE = "Bearer -"
"""What is sent for a token that metadata can't carry: the engine refuses it as any other that is none."""
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[ -~]{0,200})?")
LONG = 24 * 3600.0
"""Seconds that a channel which is not used any more may still carry what goes through it."""

Metadata = Sequence[tuple[str, str]]
Stream = grpc.aio.UnaryStreamCall[Any, bytes]
StreamMethod = grpc.aio.UnaryStreamMultiCallable[T, bytes]


def metadata(authorization: str, traceparent: str = "") -> Metadata:
    """Say who calls, and as part of which trace."""
    said = (
        [("authorization", authorization if SENDABLE.fullmatch(authorization) else UNSENDABLE)] if authorization else []
    )
    if TRACEPARENT.fullmatch(traceparent):
        said.append(("traceparent", traceparent))
    return said


class UnreachableError(Exception):
    """No engine can be reached."""


class Engine:
    """One engine: a channel to it, and what can be called. Keeps nothing about any call."""

    def __init__(self, channel: grpc.aio.Channel, *, is_named: bool) -> None:
        self.channel = channel
        self.backends = BACKENDS if is_named else 1
        """How many engines there may be behind the address: calls to a name go to one after the other."""
        self._run: StreamMethod[pb.RunRequest] = _method(channel, "Run", pb.RunRequest)
        self._resume: StreamMethod[pb.ResumeRequest] = _method(channel, "Resume", pb.ResumeRequest)
        self._cancel: Any = channel.unary_unary(
            f"/{SERVICE}/Cancel", pb.CancelRequest.SerializeToString, pb.CancelResponse.FromString
        )
        self._list: Any = channel.unary_unary(
            f"/{SERVICE}/ListAgents", pb.ListAgentsRequest.SerializeToString, pb.ListAgentsResponse.FromString
        )
        self._health: Any = HealthStub(channel)

    def open(self, frame: ClientFrame, metadata: Metadata) -> Stream:
        """Open the stream that a browser's first frame asks for."""
        if frame.HasField("run"):
            return self._run(frame.run, metadata=metadata)
        return self._resume(frame.resume, metadata=metadata)

    async def cancel(self, run_id: str, metadata: Metadata) -> None:
        """Stop a run. How it went is told by the run's own stream. Raises AioRpcError.

        Where there are several engines behind the address, they are asked in turn: one that doesn't have the run says
        NOT_FOUND, and the next call goes to another. When none has it, it is over.
        """
        for _ in range(self.backends):
            try:
                await self._cancel(pb.CancelRequest(run_id=run_id), metadata=metadata, timeout=CHECK)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
            else:
                return

    async def list_agents(self, metadata: Metadata) -> pb.ListAgentsResponse:
        """List the agents there are. Raises AioRpcError."""
        answer: pb.ListAgentsResponse = await self._list(pb.ListAgentsRequest(), metadata=metadata, timeout=CHECK)
        return answer

    async def is_serving(self) -> bool:
        """Tell whether the engine answers, and takes runs."""
        try:
            answer = await self._health.Check(HealthCheckRequest(service=SERVICE), timeout=CHECK)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == HealthCheckResponse.SERVING)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection. If not, one is begun."""
        return self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    async def wait_connected(self) -> None:
        """Wait until there is a connection."""
        while (state := self.channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            await self.channel.wait_for_state_change(state)


class Engines:
    """The engines there are, taken in turn. One that cannot be reached is passed over."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        self._turn = 0
        self._leaving = set[asyncio.Task[None]]()

    def renew(self, engines: Sequence[Engine]) -> None:
        """Use other channels to them from now on. What goes through those from before goes on to its end."""
        for engine in self._engines:
            task = asyncio.create_task(engine.channel.close(grace=LONG))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        self._engines = engines

    async def close(self) -> None:
        """End every channel."""
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*(engine.channel.close() for engine in self._engines))

    async def all(self) -> list[Engine]:
        """Return every engine, as often as it has to be asked, once each is connected or has had the time for it."""
        waiting = [asyncio.create_task(engine.wait_connected()) for engine in self._engines]
        try:
            await asyncio.wait(waiting, timeout=REACH)
        finally:
            for task in waiting:
                task.cancel()
        return [engine for engine in self._engines for _ in range(engine.backends)]

    async def next(self) -> Engine:
        """Return the next engine that is connected. Raises UnreachableError when there is none for a while."""
        for _ in self._engines:
            self._turn = (self._turn + 1) % len(self._engines)
            if self._engines[self._turn].is_connected:
                return self._engines[self._turn]
        waiting = {asyncio.create_task(engine.wait_connected()): engine for engine in self._engines}
        try:
            done, _ = await asyncio.wait(waiting, timeout=REACH, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        if not done:
            raise UnreachableError
        return waiting[done.pop()]

    async def are_serving(self) -> bool:
        """Tell whether there is an engine that takes runs."""
        return any(await asyncio.gather(*(engine.is_serving() for engine in self._engines)))


def _method(channel: grpc.aio.Channel, name: str, request: type[Any]) -> Any:
    """Return a streaming method whose responses are left as they are."""
    return channel.unary_stream(f"/{SERVICE}/{name}", request.SerializeToString, None)
