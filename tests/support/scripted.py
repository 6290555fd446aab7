"""Services that play stories: what each connection is given, and how it ends. A caller's token names its story.

Both faces are real servers on loopback: an engine's, over gRPC, and a gateway's, over WebSockets.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status.rpc_status import to_status
from runwire.v1 import engine_pb2 as pb
from runwire.v1.events_pb2 import AgentCancelled, AgentCompleted, AgentMessage, Event
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.support.clients import JSON

STORIES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "clients" / "stories.json").read_text())
EVENTS = 4
"""Events that a run has which nobody cancels."""
RUN_ID = "3e9f5d0c-6a4b-4f6e-9d0b-2f8b1c7a5e41"


class Story:
    """One story, as it is told to whoever names it."""

    def __init__(self, script: dict[str, Any]) -> None:
        self.script = script
        self.asked: list[str | int] = []
        """What each connection asked: to run, or to read on after so many events."""
        self.was_cut = asyncio.Event()
        """The first connection has ended."""
        self.cancelled = asyncio.Event()

    @property
    def expected(self) -> list[str | int]:
        return [connection["asks"] for connection in self.script["connections"]]

    def next(self, asks: str | int) -> tuple[list[Event], str]:
        """Return what the next connection is given, and how it ends."""
        self.asked.append(asks)
        if self.asked != self.expected[: len(self.asked)]:
            return [], "UNIMPLEMENTED"
        connection = self.script["connections"][len(self.asked) - 1]
        after = asks if isinstance(asks, int) else 0
        events = [_event(seq) for seq in range(after + 1, connection.get("gives", after) + 1)]
        return events, connection.get("ends", "OK")


class Stories:
    """All of them."""

    def __init__(self) -> None:
        self.stories = [Story(script) for script in STORIES]
        self.engine = self.gateway = ""
        """The addresses of both faces."""

    @property
    def handlers(self) -> dict[str, Any]:
        """What an engine can be asked, of what these stories need."""
        write = pb.RunResponse.SerializeToString  # a ResumeResponse has the same fields
        stream, unary = grpc.unary_stream_rpc_method_handler, grpc.unary_unary_rpc_method_handler
        return {
            "Run": stream(self._run, pb.RunRequest.FromString, write),
            "Resume": stream(self._resume, pb.ResumeRequest.FromString, write),
            "Cancel": unary(self._cancel, pb.CancelRequest.FromString, pb.CancelResponse.SerializeToString),
        }

    async def _run(self, request: pb.RunRequest, context: Any) -> None:
        await self._play(context, "run", request.run_id)

    async def _resume(self, request: pb.ResumeRequest, context: Any) -> None:
        await self._play(context, request.after_seq, request.run_id)

    async def _cancel(self, _: pb.CancelRequest, context: Any) -> pb.CancelResponse:
        self._of(dict(context.invocation_metadata())["authorization"]).cancelled.set()
        return pb.CancelResponse()

    def _of(self, token: str) -> Story:
        return self.stories[int(token.removeprefix("Bearer "))]

    async def _play(self, context: Any, asks: str | int, run_id: str) -> None:
        story = self._of(dict(context.invocation_metadata())["authorization"])
        events, end = story.next(asks)
        try:
            for event in events:
                await context.write(pb.RunResponse(run_id=run_id or RUN_ID, events=[event]))
            if end == "cancel":
                await context.write(pb.RunResponse(run_id=run_id or RUN_ID))  # an engine speaks at once, if only so
                await story.cancelled.wait()
                await context.write(pb.RunResponse(run_id=run_id or RUN_ID, events=[_cancelled(story)]))
            elif end in {"lost", "restarting"}:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")  # as gRPC says it of a connection
            elif end != "OK":
                status = Status(code=grpc.StatusCode[end].value[0], message="No.")
                status.details.add().Pack(ErrorInfo(reason="SCRIPTED", domain="runwire"))
                await context.abort_with_status(to_status(status))
        finally:
            story.was_cut.set()

    async def socket(self, socket: ServerConnection) -> None:
        """Serve a browser's connection."""
        first = orjson.loads(await socket.recv())
        story = self._of(first["accessToken"])
        asked = first.get("run") or first["resume"]
        run_id = asked.get("runId") or RUN_ID
        events, end = story.next("run" if "run" in first else asked["afterSeq"])
        try:
            for event in events:
                await socket.send(_frame(run_id, event))
            if end == "cancel":
                with suppress(ConnectionClosed):
                    await socket.send(orjson.dumps({"runId": run_id}).decode())
                    while "cancel" not in orjson.loads(await socket.recv()):
                        pass
                    await socket.send(_frame(run_id, _cancelled(story)))
            if end == "lost":
                await (await socket.ping())  # what was sent before has been read
                socket.transport.abort()
            else:
                await socket.close(*_closing(end))
        finally:
            story.was_cut.set()


@asynccontextmanager
async def stories() -> AsyncGenerator[Stories]:
    """Serve every story, at both faces."""
    told = Stories()
    server = grpc.aio.server()
    service = pb.DESCRIPTOR.services_by_name["EngineService"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, told.handlers),))
    told.engine = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with serve(told.socket, "127.0.0.1", 0, subprotocols=[Subprotocol(JSON)]) as sockets:
        told.gateway = f"127.0.0.1:{next(iter(sockets.sockets)).getsockname()[1]}"
        yield told
    await server.stop(None)


def _event(seq: int) -> Event:
    if seq == EVENTS:
        return Event(seq=seq, agent="told", agent_completed=AgentCompleted(output="done", data=Struct()))
    return Event(seq=seq, agent="told", agent_message=AgentMessage(delta=str(seq)))


def _cancelled(story: Story) -> Event:
    given = [connection.get("gives", 0) for connection in story.script["connections"]]
    return Event(seq=max(given) + 1, agent="told", agent_cancelled=AgentCancelled(reason="You did."))


def _frame(run_id: str, event: Event) -> str:
    return orjson.dumps({"runId": run_id, "events": [MessageToDict(event)]}).decode()


def _closing(end: str) -> tuple[int, str]:
    if end in {"OK", "cancel"}:
        return 1000, ""
    return (1012, "") if end == "restarting" else (4000 + grpc.StatusCode[end].value[0], "No.")
