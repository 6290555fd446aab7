"""The page on which operators see what runs, and what it reads."""

import http
from pathlib import Path

from google.protobuf.json_format import MessageToJson
from runwire.operations.v1 import operations_pb2 as pb
from websockets.http11 import Request, Response

from engine_service.operations.roster import Roster
from engine_service.operations.servicer import Operators
from engine_service.runs.refusal import Code, Refusal
from runwire.service.operations import Page
from runwire.service.responses import JSON, TYPES, response, text
from runwire.service.settings import host_said, parsed_ip

WEB = Path(__file__).parent / "web"
STATUSES = {Code.UNAUTHENTICATED: http.HTTPStatus.UNAUTHORIZED, Code.PERMISSION_DENIED: http.HTTPStatus.FORBIDDEN}


class Pages:
    """Answers requests for it."""

    def __init__(self, roster: Roster, operators: Operators) -> None:
        self._roster = roster
        self._operators = operators

    def all(self) -> dict[str, Page]:
        """Return what there is, by its paths."""
        files = {f"/{file.name}": _file(TYPES[file.suffix], file.read_bytes()) for file in WEB.iterdir()}
        return {**files, "/": files["/runs.html"], "/v1/runs": self._runs}

    async def _runs(self, request: Request, host: str) -> Response:
        said = [("authorization", value) for value in request.headers.get_all("Authorization")]
        if self._operators.identity.is_development and not _is_here(",".join(request.headers.get_all("Host"))):
            return text(http.HTTPStatus.FORBIDDEN, "In development this page has no name that may be anybody's.")
        try:
            await self._operators.check(said, host)
        except Refusal as refusal:
            return text(STATUSES[refusal.code], refusal.message)
        listed = await self._roster.list(pb.ListRunsRequest())
        return response(http.HTTPStatus.OK, JSON, MessageToJson(listed, indent=None).encode())


def _is_here(host: str) -> bool:
    """Tell whether an address is this machine's by what nobody else can make point here."""
    name = host_said(host)
    return name == "localhost" or parsed_ip(name) is not None


def _file(content_type: str, body: bytes) -> Page:
    async def page(*_: object) -> Response:
        return response(http.HTTPStatus.OK, content_type, body)

    return page
