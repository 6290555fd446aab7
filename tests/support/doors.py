"""The ways to a run, as its user has them: gRPC, and sockets with frames of either kind."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import grpc.aio
from google.protobuf.json_format import MessageToDict, MessageToJson, Parse
from google.rpc.error_details_pb2 import BadRequest
from grpc_status.rpc_status import from_call
from runwire.v1.engine_pb2 import AnswerRequest, AnswerResult, RunRequest, RunResponse
from runwire.v1.events_pb2 import INPUT_OUTCOME_ACCEPTED, INPUT_OUTCOME_DECLINED, Event
from runwire.v1.gateway_pb2 import AnswerFrame, CancelFrame, ClientFrame

from tests.support.clients import JSON, PROTO, caller, kind, socket
from tests.support.services import Service

OUTCOMES: dict[str, Any] = {"accepted": INPUT_OUTCOME_ACCEPTED, "declined": INPUT_OUTCOME_DECLINED}


class Verdict(NamedTuple):
    """What became of an answer."""

    code: int
    violations: Mapping[str, str] = {}


class Visit:
    """One run, as its user sees it. What happened is in `events`."""

    def __init__(self) -> None:
        self.run_id = str(uuid.uuid4())
        self.events: list[Event] = []
        self._news = asyncio.Condition()
        self._is_over = False

    async def hear(self, response: RunResponse) -> None:
        async with self._news:
            self.events += response.events
            self._news.notify_all()

    async def over(self) -> None:
        async with self._news:
            self._is_over = True
            self._news.notify_all()

    async def wait_for(self, wanted: str, many: int = 1) -> list[Event]:
        """Wait for so many events of a kind."""

        def found() -> list[Event]:
            return [event for event in self.events if kind(event) == wanted]

        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: len(found()) >= many or self._is_over)
        assert len(found()) >= many, [kind(event) for event in self.events]
        return found()

    async def asked(self, many: int = 1) -> list[str]:
        """Wait for so many questions, and return their ids."""
        return [event.input_requested.request_id for event in await self.wait_for("input_requested", many)]

    async def end(self) -> Event:
        """Wait for the end of the stream, and return the last event."""
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: self._is_over)
        return self.events[-1]

    @property
    def data(self) -> dict[str, Any]:
        return MessageToDict(self.events[-1].agent_completed.data)

    async def answer(
        self, request_id: str, outcome: str = "accepted", content: dict[str, Any] | None = None, **about: Any
    ) -> Verdict:
        """Answer a question; of this run, unless another is named."""
        raise NotImplementedError

    async def cancel(self) -> None:
        raise NotImplementedError


class GrpcVisit(Visit):
    """Through the engine's door."""

    def __init__(self, address: str, user: str) -> None:
        super().__init__()
        self._address, self._user = address, user

    @asynccontextmanager
    async def begun(self, agent: str, input: str, **fields: Any) -> AsyncGenerator[None]:
        async with caller(self._address, self._user) as self._caller:
            call = self._caller.call(agent, input, run_id=self.run_id, **fields)

            async def read() -> None:
                try:
                    async for response in call:
                        await self.hear(response)
                finally:
                    await self.over()

            reading = asyncio.create_task(read())
            try:
                yield
            finally:
                call.cancel()
                await asyncio.wait((reading,))
                if not reading.cancelled():
                    reading.exception()

    async def answer(
        self, request_id: str, outcome: str = "accepted", content: dict[str, Any] | None = None, **about: Any
    ) -> Verdict:
        user = about.get("user", self._user)
        async with caller(self._address, user) as anybody:
            request = AnswerRequest(
                run_id=about.get("run_id", self.run_id), request_id=request_id, outcome=OUTCOMES.get(outcome, 0)
            )
            request.content.update(content or {})
            try:
                await anybody.stub.Answer(request, metadata=anybody.metadata)
            except grpc.aio.AioRpcError as error:
                return Verdict(error.code().value[0], violations_of(error))
            return Verdict(0)

    async def cancel(self) -> None:
        await self._caller.cancel(self.run_id)


class SocketVisit(Visit):
    """Through a gateway's."""

    def __init__(self, address: str, user: str, subprotocol: str) -> None:
        super().__init__()
        self._address, self._user, self._subprotocol = address, user, subprotocol
        self._results: asyncio.Queue[AnswerResult] = asyncio.Queue()

    def written(self, frame: ClientFrame) -> str | bytes:
        if self._subprotocol == PROTO:
            return frame.SerializeToString()
        return MessageToJson(frame)

    def read(self, frame: str | bytes) -> RunResponse:
        return RunResponse.FromString(frame) if isinstance(frame, bytes) else Parse(frame, RunResponse())

    @asynccontextmanager
    async def begun(self, agent: str, input: str, **fields: Any) -> AsyncGenerator[None]:
        async with socket(self._address, self._subprotocol) as self._socket:
            request = RunRequest(agent=agent, input=input, run_id=self.run_id, **fields)
            await self._socket.send(self.written(ClientFrame(access_token=f"dev:{self._user}", run=request)))

            async def read() -> None:
                try:
                    async for frame in self._socket:
                        response = self.read(frame)
                        for result in response.answers:
                            self._results.put_nowait(result)
                        await self.hear(response)
                finally:
                    await self.over()

            reading = asyncio.create_task(read())
            try:
                yield
            finally:
                await self._socket.close()
                await asyncio.wait((reading,))
                reading.exception()

    async def answer(
        self, request_id: str, outcome: str = "accepted", content: dict[str, Any] | None = None, **about: Any
    ) -> Verdict:
        frame = AnswerFrame(request_id=request_id, outcome=OUTCOMES.get(outcome, 0), run_id=about.get("run_id", ""))
        frame.content.update(content or {})
        user = about.get("user", self._user)
        if user == self._user:
            await self._socket.send(self.written(ClientFrame(answer=frame)))
            return verdict(await self._results.get())
        frame.run_id = frame.run_id or self.run_id
        async with socket(self._address, self._subprotocol) as another:
            await another.send(self.written(ClientFrame(access_token=f"dev:{user}", answer=frame)))
            [result] = self.read(await another.recv()).answers
        return verdict(result)

    async def cancel(self) -> None:
        await self._socket.send(self.written(ClientFrame(cancel=CancelFrame())))


def verdict(result: AnswerResult) -> Verdict:
    return Verdict(result.code, MessageToDict(result.violations))


def violations_of(error: grpc.aio.AioRpcError) -> dict[str, str]:
    found = BadRequest()
    status = from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status else ():
        detail.Unpack(found)
    return {violation.field: violation.description for violation in found.field_violations}


DOORS = ("grpc", JSON, PROTO)


@asynccontextmanager
async def visit(
    door: str, back: Service, front: Service, agent: str, input: str = "", user: str = "alice", **fields: Any
) -> AsyncGenerator[Visit]:
    """Begin a run through a door."""
    async with AsyncExitStack() as stack:
        made = GrpcVisit(back.address, user) if door == "grpc" else SocketVisit(front.address, user, door)
        await stack.enter_async_context(made.begun(agent, input, **fields))
        yield made
