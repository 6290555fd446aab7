"""Clients that talk to real services."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import orjson
from runwire.v1.engine_pb2 import CancelRequest, ResumeRequest, RunRequest, RunResponse
from runwire.v1.engine_pb2_grpc import EngineServiceStub
from runwire.v1.events_pb2 import Event
from runwire.v1.gateway_pb2 import ClientFrame
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

if TYPE_CHECKING:
    from runwire.v1.engine_pb2_grpc import EngineServiceAsyncStub

JSON = "runwire.v1.json"
PROTO = "runwire.v1.proto"
HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
"""What opens a socket, for clients that do it by hand."""
TERMINAL = {"agent_completed", "agent_failed", "agent_cancelled"}


def kind(event: Event) -> str:
    """Return what happened, as a word."""
    return event.WhichOneof("kind") or "nothing"


def kinds(events: Iterable[Event]) -> list[str]:
    return [kind(event) for event in events]


def terminal(events: list[Event]) -> Event:
    """Return the terminal event of a run, after checking all that the laws say of a whole run."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    ends = [event for event in events if "/" not in event.agent and kind(event) in TERMINAL]
    assert ends == events[-1:], kinds(events)
    return events[-1]


class Caller:
    """A user who calls the engine directly."""

    def __init__(self, channel: grpc.aio.Channel, user: str) -> None:
        self.channel = channel
        self.stub: EngineServiceAsyncStub = EngineServiceStub(channel)
        self.metadata = (("authorization", f"Bearer dev:{user}"),)

    def call(self, agent: str, input: str = "", timeout: float | None = None, **fields: Any) -> Any:
        """Open a run."""
        request = RunRequest(agent=agent, input=input, **fields)
        return self.stub.Run(request, metadata=self.metadata, timeout=timeout)

    def resume(self, run_id: str, after_seq: int = 0, **options: Any) -> Any:
        """Join a run again."""
        request = ResumeRequest(run_id=run_id, after_seq=after_seq)
        return self.stub.Resume(request, metadata=self.metadata, **options)

    async def cancel(self, run_id: str) -> None:
        """Stop a run."""
        await self.stub.Cancel(CancelRequest(run_id=run_id), metadata=self.metadata)

    async def run(self, agent: str, input: str = "", **fields: Any) -> list[Event]:
        """Run an agent to its end."""
        return [event async for response in self.call(agent, input, **fields) for event in response.events]


@asynccontextmanager
async def caller(address: str, user: str = "alice") -> AsyncGenerator[Caller]:
    # A fixed window: what is under way to a caller who doesn't read is less than what a resumable run keeps.
    async with grpc.aio.insecure_channel(address, (("grpc.http2.bdp_probe", 0),)) as channel:
        yield Caller(channel, user)


@asynccontextmanager
async def socket(address: str, subprotocol: str = JSON, **options: Any) -> AsyncGenerator[ClientConnection]:
    """Open a socket to a gateway."""
    url = f"ws://{address}/v1/stream"
    async with connect(url, subprotocols=[Subprotocol(subprotocol)], max_size=None, **options) as connection:
        yield connection


def opening(subprotocol: str, agent: str, input: str = "", user: str = "alice", **fields: Any) -> str | bytes:
    """Write the frame that opens a run."""
    if subprotocol == JSON:
        frame = {"accessToken": f"dev:{user}", "run": {"agent": agent, "input": input, **fields}}
        return orjson.dumps(frame).decode()
    return ClientFrame(
        access_token=f"dev:{user}", run=RunRequest(agent=agent, input=input, **fields)
    ).SerializeToString()


async def frames(connection: ClientConnection) -> list[Any]:
    """Read a socket to its end. A close frame of an error ends it too: the code is the socket's."""
    received: list[Any] = []
    try:
        async for frame in connection:
            received.append(frame)  # noqa: PERF401 - what came before the end counts
    except ConnectionClosed:
        pass
    return received


def events_of(messages: Iterable[bytes]) -> list[Event]:
    """Decode binary frames."""
    return [event for message in messages for event in RunResponse.FromString(message).events]


async def taken(call: Any, upto: int | None = None) -> list[Event]:
    """Read a call up to an event of this number, or to its end."""
    events: list[Event] = []
    async for response in call:
        events += response.events
        if upto and events and events[-1].seq >= upto:
            break
    return events


async def status(call: Any) -> grpc.StatusCode:
    """Read a call to its end, and return its status."""
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def said(call: Any) -> str:
    """Return the first thing that an agent says."""
    async for response in call:
        for event in response.events:
            if kind(event) == "agent_message":
                return str(event.agent_message.delta)
    raise AssertionError("it said nothing")


async def pid_of(call: Any) -> int:
    """Return the process of an agent that says its own."""
    return int(await said(call))
