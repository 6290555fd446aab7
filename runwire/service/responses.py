"""What a plain HTTP request is answered with."""

import http
from collections.abc import Sequence

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ts": TEXT,
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What files are, by how their names end."""
ONLY_GET = "Only GET is understood here."
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors"
"""Nothing from elsewhere, nothing inline; the page may open sockets to where it came from."""
SAFE = {
    "Content-Security-Policy": f"{POLICY} 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def response(status: http.HTTPStatus, content_type: str, body: bytes) -> Response:
    """Answer with a body. Each connection is for one request."""
    about = {"Content-Type": content_type, "Content-Length": str(len(body)), "Connection": "close"}
    return Response(status.value, status.phrase, Headers(about | SAFE), body)


def text(status: http.HTTPStatus, sentence: str) -> Response:
    """Answer with a sentence."""
    return response(status, TEXT, f"{sentence}\n".encode())


def allow_frames(page: Response, origins: Sequence[str]) -> None:
    """Let pages of these origins show one inside themselves."""
    del page.headers["Content-Security-Policy"]  # to set it would add another one
    page.headers["Content-Security-Policy"] = f"{POLICY} {' '.join(origins)}"


def not_allowed() -> Response:
    """Answer what asks for something else than a page."""
    refused = text(http.HTTPStatus.METHOD_NOT_ALLOWED, ONLY_GET)
    refused.headers["Allow"] = "GET"
    return refused


def method_of(request: Request) -> str:
    """Return what a request wants of an address. Where websockets doesn't say, it has let nothing pass but GET."""
    return getattr(request, "method", "GET")
