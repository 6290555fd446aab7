"""What is served to a plain HTTP request: the console, the browser client, and how the gateway is."""

import asyncio
import http
import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
import orjson
import structlog
from runwire.v1.engine_pb2 import ListAgentsResponse
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from edge_gateway.bridge import DEVELOPMENT
from edge_gateway.connection import Arrivals
from edge_gateway.engines import Engines, UnreachableError, metadata
from edge_gateway.handshake import Handshakes, NotAdmittedError, authorization
from edge_gateway.proto_json import encoder
from runwire.service.rates import Rates

STREAM = "/v1/stream"
WEB = Path(__file__).parent / "web"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
SAFE = {
    # Nothing from elsewhere, nothing inline; the page may open sockets to where it came from.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
FRESH = 1.0
"""Seconds for which the list of agents is remembered, so that strangers who ask for it do not keep the engine busy."""
MAX_LISTS = 1000
REFUSALS_TOLD = 30
"""Refused handshakes of a kind that are logged in a minute."""
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class Pages:
    """Answers requests that are no WebSocket handshake, and lets those pass that are."""

    def __init__(
        self, engines: Engines, handshakes: Handshakes, arrivals: Arrivals, sockets: Callable[[], tuple[int, int]]
    ) -> None:
        self._engines = engines
        self._handshakes = handshakes
        self._arrivals = arrivals
        self._told = Rates(REFUSALS_TOLD)
        self._lists = OrderedDict[str, tuple[float, asyncio.Task[Response]]]()
        self._log = structlog.get_logger()
        self._sockets = sockets
        self._agents = encoder(ListAgentsResponse.DESCRIPTOR)
        self._files = {f"/{file.name}": (TYPES[file.suffix], file.read_bytes()) for file in WEB.iterdir()}
        self._files["/"] = self._files.pop("/console.html")
        self._states = {"/healthz": self._healthy, "/readyz": self._ready, "/metrics": self._metrics}

    async def answer(self, socket: ServerConnection, request: Request) -> Response | None:
        """Answer a request; None lets the handshake go on."""
        self._arrivals.asked(socket.remote_address)
        path = request.path.partition("?")[0]
        if path in self._files:
            return _response(http.HTTPStatus.OK, *self._files[path])
        if path == STREAM:
            return self._let_in(socket, request)
        if path == "/v1/agents":
            return await self._list(socket, request)
        if path in self._states:
            return await self._states[path]()
        return _text(http.HTTPStatus.NOT_FOUND, "There is nothing here.\n")

    def _let_in(self, socket: ServerConnection, request: Request) -> Response | None:
        try:
            self._handshakes.check(socket, request)
        except NotAdmittedError as refused:
            return self._refused(socket, refused)
        return None

    def _refused(self, socket: ServerConnection, refused: NotAdmittedError) -> Response:
        if not self._told.take(refused.sentence):  # one who tries all day is not to fill the log
            peer = str(socket.remote_address[0]) if socket.remote_address else ""
            self._log.info("handshake refused", status=refused.status.value, message=refused.sentence, peer=peer)
        response = _text(refused.status, f"{refused.sentence}\n")
        if refused.retry_after:
            response.headers["Retry-After"] = str(math.ceil(refused.retry_after))
        return response

    async def _list(self, socket: ServerConnection, request: Request) -> Response:
        """Say which agents there are, to whoever may know. What the engine said is true for a moment."""
        try:
            self._handshakes.pass_page(socket, request)
        except NotAdmittedError as refused:
            return self._refused(socket, refused)
        refusal = self._handshakes.development_refusal(socket, request)
        who = authorization(request.headers)
        question = f"{refusal or ''}\n{who}"
        now = asyncio.get_running_loop().time()
        until, asking = self._lists.pop(question, (0.0, None))
        if asking is None or until < now:
            until, asking = now + FRESH, asyncio.create_task(self._ask(who, refusal))
        self._lists[question] = until, asking
        if len(self._lists) > MAX_LISTS:
            self._lists.popitem(last=False)
        response = await asyncio.shield(asking)
        return Response(response.status_code, response.reason_phrase, response.headers.copy(), response.body)

    async def _ask(self, who: str, refusal: str | None) -> Response:
        try:
            engine, *_ = await self._engines.in_turn()
            call = engine.list_agents(metadata(who))
            agents = await call
        except UnreachableError:
            return _text(http.HTTPStatus.SERVICE_UNAVAILABLE, "The engine cannot be reached.\n")
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return _text(http.HTTPStatus.UNAUTHORIZED, "You are not signed in.\n")
            return _text(http.HTTPStatus.SERVICE_UNAVAILABLE, "The engine did not answer.\n")
        if refusal and DEVELOPMENT in tuple(await call.initial_metadata() or ()):
            return _text(http.HTTPStatus.FORBIDDEN, f"{refusal}\n")
        return _response(http.HTTPStatus.OK, JSON, orjson.dumps(self._agents(agents)))

    async def _healthy(self) -> Response:
        return _text(http.HTTPStatus.OK, "ok\n")

    async def _ready(self) -> Response:
        if self._engines.are_serving:
            return _text(http.HTTPStatus.OK, "ready\n")
        return _text(http.HTTPStatus.SERVICE_UNAVAILABLE, "the engine is not ready\n")

    async def _metrics(self) -> Response:
        now, ever = self._sockets()
        lines = (
            "# HELP runwire_gateway_sockets Sockets that are open.",
            "# TYPE runwire_gateway_sockets gauge",
            f"runwire_gateway_sockets {now}",
            "# HELP runwire_gateway_sockets_total Sockets that were opened.",
            "# TYPE runwire_gateway_sockets_total counter",
            f"runwire_gateway_sockets_total {ever}",
        )
        return _response(http.HTTPStatus.OK, "text/plain; version=0.0.4", "\n".join((*lines, "")).encode())


def _text(status: http.HTTPStatus, body: str) -> Response:
    return _response(status, TEXT, body.encode())


def _response(status: http.HTTPStatus, content_type: str, body: bytes) -> Response:
    about = {"Content-Type": content_type, "Content-Length": str(len(body)), "Connection": "close"}
    return Response(status.value, status.phrase, Headers(about | SAFE), body)
