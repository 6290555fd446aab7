"""What is served to a plain HTTP request: the console, the browser client, and how the gateway is."""

import asyncio
import http
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import grpc
import grpc.aio
import orjson
import structlog
from runwire.v1.engine_pb2 import ListAgentsResponse, ListRunsResponse, RunInfo
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from edge_gateway import cors
from edge_gateway.bridge import NotForPublicError
from edge_gateway.engines import Engines, Metadata, UnreachableError, metadata
from edge_gateway.handshake import Handshakes, NotAdmittedError, authorization
from edge_gateway.proto_json import encoder
from runwire.calling import DEVELOPMENT, SHARED
from runwire.service.arrivals import Arrivals
from runwire.service.operations import healthy, ready
from runwire.service.rates import Rates
from runwire.service.responses import JSON, TYPES, allow_frames, method_of, not_allowed, response, text

STREAM = "/v1/stream"
WEB = Path(__file__).parent / "web"
FRESH = 1.0
"""Seconds for which the list of agents is remembered, so that strangers who ask for it do not keep the engine busy."""
MAX_LISTS = 1000
NOT_READY = "the engine is not ready"
REFUSALS_TOLD = 30
"""Refused handshakes of a kind that are logged in a minute."""
MAX_TOLD = 200
"""Characters of an origin that are logged."""
M = TypeVar("M", ListAgentsResponse, ListRunsResponse)
Ask = Callable[[Metadata, str | None], Awaitable[Any]]
"""Asks the engines something, and returns what JSON holds."""


class Console(NamedTuple):
    """What the console has to know."""

    engine: str
    """Where the engine is. That is told in development alone."""
    trace_page: str
    """Where a trace can be looked at: an address with {trace_id} in it; empty where none can."""
    frames: Sequence[str] = ()
    """Origins of pages that may show it inside themselves."""


class Pages:
    """Answers requests that are no WebSocket handshake, and lets those pass that are."""

    def __init__(
        self,
        engines: Engines,
        handshakes: Handshakes,
        arrivals: Arrivals,
        on_refusal: Callable[[int], None],
        console: Console,
    ) -> None:
        self._console = console
        self._engines = engines
        self._handshakes = handshakes
        self._arrivals = arrivals
        self._told = Rates(REFUSALS_TOLD)
        self._lists = OrderedDict[str, tuple[float, asyncio.Task[Response]]]()
        self._asked: dict[str, tuple[Ask, float]] = {
            "/v1/agents": (self._agents, FRESH),
            "/v1/runs": (self._runs, 0),
            "/v1/console": (self._about, FRESH),
        }
        self._log = structlog.get_logger()
        self._on_refusal = on_refusal
        self._encode_agents = encoder(ListAgentsResponse.DESCRIPTOR)
        self._encode_runs = encoder(ListRunsResponse.DESCRIPTOR)
        files = [file for file in WEB.rglob("*") if file.is_file()]
        read = {file: (TYPES[file.suffix], file.read_bytes()) for file in files}
        self._files = {f"/{file.relative_to(WEB).as_posix()}": found for file, found in read.items()}
        self._files["/"] = self._files.pop("/console/index.html")
        self._states = {"/healthz": healthy, "/readyz": ready(lambda: engines.are_serving, NOT_READY)}

    async def answer(self, socket: ServerConnection, request: Request) -> Response | None:
        """Answer a request; None lets the handshake go on."""
        self._arrivals.asked(socket.remote_address)
        path = request.path.partition("?")[0]
        origin = "".join(request.headers.get_all("Origin"))
        is_open = bool(origin) and cors.readable(path) and self._handshakes.is_welcome(request)
        method = method_of(request)
        if method == "GET":
            response = await self._at(path, socket, request)
        else:
            response = cors.permission() if is_open and method == cors.PREFLIGHT else not_allowed()
        if response and is_open:
            cors.open_to(response, origin)
        if response and cors.readable(path):
            cors.varies(response)
        return response

    async def _at(self, path: str, socket: ServerConnection, request: Request) -> Response | None:
        if path in self._files:
            found = response(http.HTTPStatus.OK, *self._files[path])
            if path == "/" and self._console.frames:
                allow_frames(found, self._console.frames)
            return found
        if path == STREAM:
            return self._let_in(socket, request)
        if path in self._asked:
            return await self._list(socket, request, path)
        if path in self._states:
            return await self._states[path](request, "")
        return text(http.HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _let_in(self, socket: ServerConnection, request: Request) -> Response | None:
        try:
            self._handshakes.check(socket, request)
        except NotAdmittedError as refused:
            response = self._refused(socket, request, refused)
            if refused.status is http.HTTPStatus.FORBIDDEN:  # a page cannot read why a socket was refused, but this
                cors.open_to(response, cors.ANYBODY)
            return response
        return None

    def _refused(self, socket: ServerConnection, request: Request, refused: NotAdmittedError) -> Response:
        self._on_refusal(refused.status.value)
        if not self._told.take(refused.sentence):  # one who tries all day is not to fill the log
            peer = str(socket.remote_address[0]) if socket.remote_address else ""
            origin = ascii(",".join(request.headers.get_all("Origin"))[:MAX_TOLD])[1:-1]
            told = {"message": refused.sentence, "peer": peer} | ({"origin": origin} if origin else {})
            self._log.info("handshake refused", status=refused.status.value, **told)
        response = text(refused.status, refused.sentence)
        if refused.retry_after:
            response.headers["Retry-After"] = str(math.ceil(refused.retry_after))
        return response

    async def _list(self, socket: ServerConnection, request: Request, path: str) -> Response:
        """Say which agents there are, or which runs, to whoever may know. The first is true for a moment."""
        try:
            self._handshakes.pass_page(socket, request)
        except NotAdmittedError as refused:
            return self._refused(socket, request, refused)
        refusal = self._handshakes.development_refusal(socket, request)
        who = authorization(request.headers)
        ask, fresh = self._asked[path]
        question = f"{path}\n{refusal or ''}\n{who}"
        now = asyncio.get_running_loop().time()
        until, asking = self._lists.pop(question, (0.0, None))
        if asking is None or (until < now and asking.done()):
            until, asking = now + fresh, asyncio.create_task(self._ask(ask, metadata(who), refusal))
        self._lists[question] = until, asking
        if len(self._lists) > MAX_LISTS:
            self._lists.popitem(last=False)
        response = await asyncio.shield(asking)
        if not fresh:
            self._lists.pop(question, None)
        return Response(response.status_code, response.reason_phrase, response.headers.copy(), response.body)

    async def _ask(self, ask: Ask, said: Metadata, refusal: str | None) -> Response:
        try:
            document = await ask(said, refusal)
        except UnreachableError:
            return text(http.HTTPStatus.SERVICE_UNAVAILABLE, "The engine cannot be reached.")
        except NotForPublicError as refused:
            return text(http.HTTPStatus.FORBIDDEN, str(refused))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return text(http.HTTPStatus.UNAUTHORIZED, "You are not signed in.")
            return text(http.HTTPStatus.SERVICE_UNAVAILABLE, "The engine did not answer.")
        return response(http.HTTPStatus.OK, JSON, orjson.dumps(document))

    async def _about(self, said: Metadata, refusal: str | None) -> Any:
        """Say what the console has to know, to whoever may call."""
        engine, *_ = await self._engines.in_turn()
        call = engine.list_agents(said)
        await _answered(call, refusal)
        is_development = DEVELOPMENT in tuple(await call.initial_metadata() or ())
        address = self._console.engine if is_development else ""
        return {"isDevelopment": is_development, "engine": address, "tracePage": self._console.trace_page}

    async def _agents(self, said: Metadata, refusal: str | None) -> Any:
        """Ask the engine whose turn it is: all have the same agents."""
        engine, *_ = await self._engines.in_turn()
        return self._encode_agents(await _answered(engine.list_agents(said), refusal))

    async def _runs(self, said: Metadata, refusal: str | None) -> Any:
        """Ask the engine whose turn it is, and the others where each has runs of its own."""
        engine, *_ = await self._engines.in_turn()
        call = engine.list_runs(said)
        if SHARED in tuple(await call.initial_metadata() or ()):
            return self._encode_runs(await _answered(call, refusal))
        others = [_answered(each.list_runs(said), refusal) for each in await self._engines.all() if each is not engine]
        found = await asyncio.gather(_answered(call, refusal), *others, return_exceptions=True)
        lists = [each for each in found if isinstance(each, ListRunsResponse)]
        if not lists:
            raise next((each for each in found if isinstance(each, BaseException)), UnreachableError())
        runs = sorted((run for each in lists for run in each.runs), key=_began, reverse=True)
        return self._encode_runs(ListRunsResponse(runs=runs))


async def _answered(call: grpc.aio.UnaryUnaryCall[Any, M], refusal: str | None) -> M:
    """Wait for what an engine answers. Raises NotForPublicError for one that believes everybody, if that is refused."""
    answer = await call
    if refusal and DEVELOPMENT in tuple(await call.initial_metadata() or ()):
        raise NotForPublicError(refusal)
    return answer


def _began(run: RunInfo) -> int:
    return run.started.ToNanoseconds()
