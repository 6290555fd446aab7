"""What is served to a plain HTTP request: the console, the browser client, and how the gateway is."""

import http
import math
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
import orjson
from runwire.v1.engine_pb2 import ListAgentsResponse
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from edge_gateway.doors import Doors, NotAdmittedError
from edge_gateway.engine import Engines, UnreachableError, metadata
from edge_gateway.proto_json import encoder

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
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class Pages:
    """Answers requests that are no WebSocket handshake, and lets those pass that are."""

    def __init__(self, engines: Engines, doors: Doors, sockets: Callable[[], tuple[int, int]]) -> None:
        self._engines = engines
        self._doors = doors
        self._sockets = sockets
        self._agents = encoder(ListAgentsResponse.DESCRIPTOR)
        self._files = {f"/{file.name}": (TYPES[file.suffix], file.read_bytes()) for file in WEB.iterdir()}
        self._files["/"] = self._files.pop("/console.html")
        self._states = {"/healthz": self._healthy, "/readyz": self._ready, "/metrics": self._metrics}

    async def answer(self, socket: ServerConnection, request: Request) -> Response | None:
        """Answer a request; None lets the handshake go on."""
        if request.method != "GET":
            response = _text(http.HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is understood here.\n")
            response.headers["Allow"] = "GET"
            return response
        path = request.path.partition("?")[0]
        if path in self._files:
            return _response(http.HTTPStatus.OK, *self._files[path])
        if path == STREAM:
            return self._let_in(socket, request)
        if path == "/v1/agents":
            return await self._list(request)
        if path in self._states:
            return await self._states[path]()
        return _text(http.HTTPStatus.NOT_FOUND, "There is nothing here.\n")

    def _let_in(self, socket: ServerConnection, request: Request) -> Response | None:
        try:
            self._doors.check(socket, request)
        except NotAdmittedError as refused:
            response = _text(refused.status, f"{refused.sentence}\n")
            if refused.retry_after:
                response.headers["Retry-After"] = str(math.ceil(refused.retry_after))
            return response
        return None

    async def _list(self, request: Request) -> Response:
        """Say which agents there are, to whoever may know."""
        try:
            engine = await self._engines.next()
            agents = await engine.list_agents(metadata(",".join(request.headers.get_all("Authorization"))))
        except UnreachableError:
            return _text(http.HTTPStatus.SERVICE_UNAVAILABLE, "The engine cannot be reached.\n")
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return _text(http.HTTPStatus.UNAUTHORIZED, "You are not signed in.\n")
            return _text(http.HTTPStatus.SERVICE_UNAVAILABLE, "The engine did not answer.\n")
        return _response(http.HTTPStatus.OK, JSON, orjson.dumps(self._agents(agents)))

    async def _healthy(self) -> Response:
        return _text(http.HTTPStatus.OK, "ok\n")

    async def _ready(self) -> Response:
        if await self._engines.are_serving():
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
