"""What is served to a plain HTTP request."""

import http
from collections.abc import Awaitable, Callable

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

STREAM = "/v1/stream"


class Pages:
    """Answers requests that are no WebSocket handshake, and lets those pass that are."""

    def __init__(self, is_ready: Callable[[], Awaitable[bool]]) -> None:
        self._is_ready = is_ready

    async def answer(self, _: ServerConnection, request: Request) -> Response | None:
        """Answer a request; None lets the handshake go on."""
        path = request.path.partition("?")[0]
        if path == STREAM:
            return None
        if path == "/healthz":
            return _text(http.HTTPStatus.OK, "ok\n")
        if path == "/readyz":
            if await self._is_ready():
                return _text(http.HTTPStatus.OK, "ready\n")
            return _text(http.HTTPStatus.SERVICE_UNAVAILABLE, "the engine is not ready\n")
        return _text(http.HTTPStatus.NOT_FOUND, "There is nothing here.\n")


def _text(status: http.HTTPStatus, body: str) -> Response:
    data = body.encode()
    headers = Headers(
        {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(data)), "Connection": "close"}
    )
    return Response(status.value, status.phrase, headers, data)
