"""Who may come in, and what they say of themselves: before a socket is one, and before anything of it exists."""

import http
import re
from collections.abc import Callable, Sequence

from runwire.v1.gateway_pb2 import ClientFrame
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.typing import Subprotocol

from edge_gateway import engines
from edge_gateway.frames import CODECS
from runwire.service.rates import Rates
from runwire.service.settings import Ip, Network, holder, host_said, is_near, parsed_ip

LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
"""What a page on this machine calls us."""

FORWARDING = re.compile(r"forwarded|via|x-forwarded-.*|x-envoy-.*|.*-(client|real|connecting)-ip", re.IGNORECASE)
"""What proxies add. Behind one, whoever comes from nearby may come from anywhere."""


class NotAdmittedError(Exception):
    """A handshake that is refused: the status, a sentence, and when to come back if that makes sense."""

    def __init__(self, status: http.HTTPStatus, sentence: str, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.retry_after = retry_after


class Handshakes:
    """Looks at handshakes: where they come from, how many there are, and how often."""

    def __init__(
        self,
        *,
        origins: Sequence[str],
        trusted_proxies: Sequence[Network],
        rates: Rates,
        questions: Rates,
        max_connections: int,
        connections: Callable[[], int],
        is_tls: bool = False,
        is_loopback: bool = False,
        development_network: str | None = None,
    ) -> None:
        self._development_network = development_network
        self._is_tls = is_tls
        self._is_loopback = is_loopback
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self._trusted_proxies = trusted_proxies
        self._rates = rates
        self._questions = questions
        self._max_connections = max_connections
        self._connections = connections

    def check(self, socket: ServerConnection, request: Request) -> None:
        """Let a handshake pass. Raises NotAdmittedError."""
        if "?" in request.path:
            # Addresses end up in logs and histories; a token that is in one is no secret any more.
            raise NotAdmittedError(http.HTTPStatus.BAD_REQUEST, "The address takes no query: a token goes elsewhere.")
        if not self.is_welcome(request):
            raise NotAdmittedError(http.HTTPStatus.FORBIDDEN, "Pages from there may not open a socket here.")
        if wait := self._rates.take(self._address(socket, request)):
            raise NotAdmittedError(http.HTTPStatus.TOO_MANY_REQUESTS, "Too many sockets in a short time.", wait)
        if self._connections() >= self._max_connections:
            raise NotAdmittedError(http.HTTPStatus.SERVICE_UNAVAILABLE, "There is no room. Come back in a moment.", 5)

    def pass_page(self, socket: ServerConnection, request: Request) -> None:
        """Let a question pass that costs the engine something. Raises NotAdmittedError."""
        if wait := self._questions.take(self._address(socket, request)):
            raise NotAdmittedError(http.HTTPStatus.TOO_MANY_REQUESTS, "Too many questions in a short time.", wait)

    def development_refusal(self, socket: ServerConnection, request: Request | None) -> str | None:
        """Say why a caller must not reach an engine that believes everybody, if it mustn't."""
        peer = str(socket.remote_address[0]) if socket.remote_address else ""
        if not (self._is_loopback or self._development_network):
            return "The engine is in development mode, and this gateway is public: that lets everybody be anybody."
        if self._trusted_proxies or request is None or any(FORWARDING.match(name) for name in request.headers):
            return "The engine is in development mode, and this came through a proxy: that lets everybody be anybody."
        if not is_near(peer, self._development_network):
            return "The engine is in development mode, which is for this machine and its named network alone."
        name = host_said(",".join(request.headers.get_all("Host")).lower())
        address = parsed_ip(name)
        is_ours = (
            "." not in name if address is None else address.is_unspecified or is_near(name, self._development_network)
        )
        if not (name and is_ours):
            return "The engine is in development mode, and takes no name that may be anybody's: use localhost."
        return None

    def is_welcome(self, request: Request) -> bool:
        """Tell whether the page is ours, or one that is named. What has no origin is no browser."""
        origins = request.headers.get_all("Origin")
        if not origins:
            return True
        host = ",".join(request.headers.get_all("Host")).lower()
        ours = {f"https://{host}"} if self._is_tls else {f"https://{host}", f"http://{host}"}
        if self._is_loopback and not self._trusted_proxies and LOOPBACK.fullmatch(host) is None:
            # A name that somebody made point here, so that their page may pass for ours.
            ours = set()
        return len(origins) == 1 and origins[0].lower() in self._origins | ours

    def _address(self, socket: ServerConnection, request: Request) -> str:
        """Return who calls: the peer, or whom the proxies that we trust say they speak for."""
        address = parsed_ip(str(socket.remote_address[0])) if socket.remote_address else None
        forwarded = ",".join(request.headers.get_all("X-Forwarded-For")).split(",")
        for part in reversed([part.strip() for part in forwarded if part.strip()]):
            earlier = _parsed(part)
            if address is None or earlier is None or not any(address in known for known in self._trusted_proxies):
                break
            address = earlier
        return holder(address)


def subprotocol(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Choose the first of the browser's offers that is ours. Where there is none, the default's frames are sent."""
    ours = {codec.subprotocol for codec in CODECS}
    return next((name for name in offered if name in ours), None)


def authorization(headers: Headers) -> str:
    """Return what a request says of who sends it. Two such headers are joined, which makes them what nobody accepts."""
    return ",".join(headers.get_all("Authorization"))


def metadata(frame: ClientFrame, socket: ServerConnection) -> engines.Metadata:
    """Say who calls, and as part of which trace: what a frame says, or else the browser's own request."""
    headers = socket.request.headers if socket.request else Headers()
    who = f"Bearer {frame.access_token}" if frame.access_token else authorization(headers)
    return engines.metadata(who, traceparent(frame, socket))


def traceparent(frame: ClientFrame, socket: ServerConnection) -> str:
    """Return the trace that a frame is part of: as it says, or else as the browser's own request does."""
    headers = socket.request.headers if socket.request else Headers()
    return frame.traceparent or ",".join(headers.get_all("traceparent"))


def _parsed(text: str) -> Ip | None:
    """Read an address as proxies write it: with a port, in brackets, or as IPv4 inside IPv6."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](:\d+)?", text)
    bare = bracketed[1] if bracketed else re.sub(r"^([\d.]+):\d+$", r"\1", text)
    return parsed_ip(bare)
