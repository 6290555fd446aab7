"""The engines, as the gateway calls them: bytes come back, and stay bytes."""

import asyncio
import re
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
import grpc.aio
import structlog
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from runwire.v1 import engine_pb2 as pb
from runwire.v1.gateway_pb2 import ClientFrame

from runwire import calling
from runwire.calling import REACH
from runwire.service.settings import host_of, parsed_ip

T = TypeVar("T")
SERVICE = pb.DESCRIPTOR.services_by_name["EngineService"].full_name

CHECK = 1.0
"""Seconds that an engine has to answer how it is."""
WORD = 10.0
"""Seconds that it has to take a word to a run: a thousand may be ended at once. Its checks find one that hangs."""
RESOLVE = 5.0
"""Seconds between two looks at what addresses a name has."""

OPTIONS = (
    *calling.OPTIONS,
    ("grpc.keepalive_permit_without_calls", 1),  # an engine is watched all the time
    ("grpc.http2.max_pings_without_data", 0),
)

SENDABLE = re.compile(r"[ -~]{1,65536}")
"""What metadata can carry."""
UNSENDABLE = "Bearer -"
"""What is sent for a token that metadata can't carry: the engine refuses it as any other that is none."""
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[ -~]{0,200})?")

Metadata = Sequence[tuple[str, str]]
Stream = grpc.aio.UnaryStreamCall[Any, bytes]
StreamMethod = grpc.aio.UnaryStreamMultiCallable[T, bytes]
OpenChannel = Callable[[str, str], grpc.aio.Channel]
"""Opens a channel to an address whose certificate, if it has one, is for a host."""


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
    """One engine: a channel to it, what can be called, and whether it takes runs. Keeps nothing about any call."""

    def __init__(self, channel: grpc.aio.Channel, on_change: Callable[[], None]) -> None:
        self._channel = channel
        self._on_change = on_change
        self._run: StreamMethod[pb.RunRequest] = _method(channel, "Run", pb.RunRequest)
        self._resume: StreamMethod[pb.ResumeRequest] = _method(channel, "Resume", pb.ResumeRequest)
        self._cancel: Any = channel.unary_unary(
            f"/{SERVICE}/Cancel", pb.CancelRequest.SerializeToString, pb.CancelResponse.FromString
        )
        self._answer: Any = channel.unary_unary(
            f"/{SERVICE}/Answer", pb.AnswerRequest.SerializeToString, pb.AnswerResponse.FromString
        )
        self._runs: Any = channel.unary_unary(
            f"/{SERVICE}/ListRuns", pb.ListRunsRequest.SerializeToString, pb.ListRunsResponse.FromString
        )
        self._list: Any = channel.unary_unary(
            f"/{SERVICE}/ListAgents", pb.ListAgentsRequest.SerializeToString, pb.ListAgentsResponse.FromString
        )
        self._health: Any = HealthStub(channel)
        self._is_serving = False
        self._calls = 0
        self._is_retired = False
        self._released = asyncio.Event()
        self._following = asyncio.create_task(self._follow())

    def open(self, frame: ClientFrame, metadata: Metadata) -> Stream:
        """Open the stream that a browser's first frame asks for."""
        if frame.HasField("run"):
            return self._run(frame.run, metadata=metadata)
        return self._resume(frame.resume, metadata=metadata)

    async def cancel(self, run_id: str, metadata: Metadata) -> None:
        """Stop a run. How it went is told by the run's own stream. Raises AioRpcError."""
        try:
            await self._cancel(pb.CancelRequest(run_id=run_id), metadata=metadata, timeout=WORD)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:  # it is over
                raise

    async def answer(self, request: pb.AnswerRequest, metadata: Metadata) -> None:
        """Answer a question of a run. Raises AioRpcError."""
        await self._answer(request, metadata=metadata, timeout=WORD)

    def list_runs(self, metadata: Metadata) -> grpc.aio.UnaryUnaryCall[Any, pb.ListRunsResponse]:
        """List the caller's runs. The call's result may be an AioRpcError."""
        call: grpc.aio.UnaryUnaryCall[Any, pb.ListRunsResponse] = self._runs(
            pb.ListRunsRequest(), metadata=metadata, timeout=CHECK
        )
        return call

    def list_agents(self, metadata: Metadata) -> grpc.aio.UnaryUnaryCall[Any, pb.ListAgentsResponse]:
        """List the agents there are. The call's result may be an AioRpcError."""
        call: grpc.aio.UnaryUnaryCall[Any, pb.ListAgentsResponse] = self._list(
            pb.ListAgentsRequest(), metadata=metadata, timeout=CHECK
        )
        return call

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection. If not, one is begun."""
        return self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    async def wait_connected(self) -> None:
        """Wait until there is a connection."""
        while (state := self._channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            await self._channel.wait_for_state_change(state)

    @property
    def is_serving(self) -> bool:
        """Whether it takes runs, as far as it has told."""
        return self._is_serving

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep the channel open, also for the cancelling of what goes through it. Raises UnreachableError."""
        if self._is_retired and not self._calls:
            raise UnreachableError
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._released.set()

    async def retire(self) -> None:
        """Be used no longer: the channel is closed once nobody holds it."""
        self._is_retired = True
        self._following.cancel()
        while self._calls:
            self._released.clear()
            await self._released.wait()
        await self._channel.close()

    async def close(self) -> None:
        """End the channel, and all that goes through it."""
        self._following.cancel()
        await self._channel.close()

    async def _follow(self) -> None:
        """Hear how it is, all the time."""
        question = HealthCheckRequest(service=SERVICE)
        while True:
            try:
                async for answer in self._health.Watch(question, wait_for_ready=True):
                    self._learn(is_serving=answer.status == HealthCheckResponse.SERVING)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:  # others watch it, as many as may
                    self._learn(is_serving=await self._ask())
                else:
                    self._learn(is_serving=False)
            await asyncio.sleep(CHECK / 2)

    async def _ask(self) -> bool:
        try:
            answer = await self._health.Check(HealthCheckRequest(service=SERVICE), timeout=CHECK)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == HealthCheckResponse.SERVING)

    def _learn(self, *, is_serving: bool) -> None:
        self._is_serving = is_serving
        self._on_change()


class Engines:
    """The engines there are, taken in turn: one channel for each address, also of those that share a name."""

    def __init__(self, addresses: Sequence[str], open_channel: OpenChannel) -> None:
        self._addresses = tuple(dict.fromkeys(addresses))
        self._open_channel = open_channel
        self._engines = dict[tuple[str, str], Engine]()  # by address as it was named, and as it is
        self._turn = 0
        self._changed = asyncio.Event()
        self._looked: set[str] = set()  # names that were looked up, be it with success or not
        self._tasks = set[asyncio.Task[None]]()

    def begin(self) -> None:
        """Go to the engines."""
        for address in self._addresses:
            if parsed_ip(host_of(address)):
                self._settle(address, {address})
            else:
                self._keep(self._resolve(address))

    def renew(self, open_channel: OpenChannel) -> None:
        """Use other channels to them from now on. What goes through those from before goes on to its end."""
        self._open_channel = open_channel
        for named, address in tuple(self._engines):
            self._keep(self._engines.pop((named, address)).retire())
            self._add(named, address)

    async def close(self) -> None:
        """End every channel."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(engine.close() for engine in self._engines.values()))

    async def all(self) -> list[Engine]:
        """Return every engine, once each is connected or has had the time for it."""
        await self._wait(lambda: True)
        engines = list(self._engines.values())
        if waiting := [asyncio.create_task(engine.wait_connected()) for engine in engines if not engine.is_connected]:
            try:
                await asyncio.wait(waiting, timeout=REACH)
            finally:
                for task in waiting:
                    task.cancel()
        return list(self._engines.values())  # others than before, perhaps

    async def each(self) -> AsyncGenerator[Engine]:
        """Give every engine: those that are connected, in turn, and then those that come to be in time."""
        connected = [engine for engine in self._rotated() if engine.is_connected]
        for engine in connected:
            yield engine
        for engine in await self.all():
            if engine not in connected:
                yield engine

    async def in_turn(self) -> list[Engine]:
        """Return the engines to ask for a run, in this order. Raises UnreachableError when there is none."""
        await self._wait(lambda: any(engine.is_serving for engine in self._engines.values()))
        # One that has not told how it is, or is full, may still take a run or say why not.
        found = sorted((each for each in self._rotated() if each.is_serving or each.is_connected), key=_is_not_serving)
        if not found:
            raise UnreachableError
        return found

    def _rotated(self) -> list[Engine]:
        self._turn += 1
        engines = list(self._engines.values())
        after = self._turn % len(engines) if engines else 0
        return engines[after:] + engines[:after]

    @property
    def are_serving(self) -> bool:
        """Whether there is an engine that takes runs."""
        return self.many_serving > 0

    @property
    def many(self) -> int:
        """How many there are."""
        return len(self._engines)

    @property
    def many_serving(self) -> int:
        """How many of them take runs."""
        return sum(engine.is_serving for engine in self._engines.values())

    async def _wait(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so of the engines, but not for long."""
        try:
            async with asyncio.timeout(REACH):
                while not (self._engines and len(self._looked) == len(self._addresses) and is_so()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    async def _resolve(self, named: str) -> None:
        """Follow what addresses a name has."""
        host, port = host_of(named), named.rpartition(":")[2]
        loop = asyncio.get_running_loop()
        while True:
            try:
                found = await loop.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
            except OSError as error:  # those we know may still be there
                if named not in self._looked:
                    structlog.get_logger().warning("the engine's name is not known", name=host, error=str(error))
                self._looked.add(named)
                self._changed.set()
            else:
                ips = {str(address[0]) for *_, address in found}
                self._settle(named, {f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in ips})
            await asyncio.sleep(RESOLVE)

    def _settle(self, named: str, addresses: set[str]) -> None:
        """Have an engine for each of a name's addresses, and for no other."""
        known = {address for name, address in self._engines if name == named}
        for address in sorted(addresses - known):
            self._add(named, address)
        for address in known - addresses:
            self._keep(self._engines.pop((named, address)).retire())
        self._looked.add(named)
        self._changed.set()

    def _add(self, named: str, address: str) -> None:
        self._engines[named, address] = Engine(self._open_channel(address, host_of(named)), self._changed.set)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_not_serving(engine: Engine) -> bool:
    return not engine.is_serving


def _method(channel: grpc.aio.Channel, name: str, request: type[Any]) -> Any:
    """Return a streaming method whose responses are left as they are."""
    return channel.unary_stream(f"/{SERVICE}/{name}", request.SerializeToString, None)
