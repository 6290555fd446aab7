"""What pages from elsewhere may read: those that are welcome, the browser client and lists; a refusal, anybody's."""

import http

from websockets.datastructures import Headers
from websockets.http11 import Response
from websockets.version import version

CLIENT = "/runwire.js"
LISTS = frozenset({"/v1/agents", "/v1/runs"})
SEES_PREFLIGHTS = int(version.partition(".")[0]) >= 17  # noqa: PLR2004 - the release that no longer refuses them by itself
"""Whether a browser can ask if it may send a token along. Where it can't, lists are for our own pages."""
PREFLIGHT = "OPTIONS"
"""By which a browser asks what a page may send."""
ANYBODY = "*"
REMEMBERED = "600"
"""Seconds that a browser need not ask again."""


def permission() -> Response:
    """Answer that a page may ask with a token."""
    headers = {
        "Access-Control-Allow-Methods": "GET",
        "Access-Control-Allow-Headers": "authorization",
        "Access-Control-Max-Age": REMEMBERED,
        "Content-Length": "0",
        "Connection": "close",
    }
    status = http.HTTPStatus.OK
    return Response(status.value, status.phrase, Headers(headers), b"")


def readable(path: str) -> bool:
    """Tell whether pages from elsewhere that are welcome may read what is there."""
    return path == CLIENT or (path in LISTS and SEES_PREFLIGHTS)


def open_to(response: Response, origin: str) -> None:
    """Let pages of an origin read a response."""
    response.headers["Access-Control-Allow-Origin"] = origin


def varies(response: Response) -> None:
    """Say to whoever keeps a response that another page may get another one."""
    response.headers["Vary"] = "Origin"
