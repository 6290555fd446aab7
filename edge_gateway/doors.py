"""Who may come in: before a socket is one, and before anything of it exists."""

import http
import ipaddress
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request

from edge_gateway.rates import Rates

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class NotAdmittedError(Exception):
    """A handshake that is refused: the status, a sentence, and when to come back if that makes sense."""

    def __init__(self, status: http.HTTPStatus, sentence: str, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.retry_after = retry_after


class Doors:
    """Looks at handshakes: where they come from, how many there are, and how often."""

    def __init__(
        self,
        *,
        origins: Sequence[str],
        trusted_proxies: Sequence[Network],
        rates: Rates,
        max_connections: int,
        connections: Callable[[], int],
    ) -> None:
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self._trusted_proxies = trusted_proxies
        self._rates = rates
        self._max_connections = max_connections
        self._connections = connections

    def check(self, socket: ServerConnection, request: Request) -> None:
        """Let a handshake pass. Raises NotAdmittedError."""
        if "?" in request.path:
            # Addresses end up in logs and histories; a token that is in one is no secret any more.
            raise NotAdmittedError(http.HTTPStatus.BAD_REQUEST, "The address takes no query: a token goes elsewhere.")
        if not self._is_welcome(request):
            raise NotAdmittedError(http.HTTPStatus.FORBIDDEN, "Pages from there may not open a socket here.")
        if wait := self._rates.take(self._address(socket, request)):
            raise NotAdmittedError(http.HTTPStatus.TOO_MANY_REQUESTS, "Too many sockets in a short time.", wait)
        if self._connections() >= self._max_connections:
            raise NotAdmittedError(http.HTTPStatus.SERVICE_UNAVAILABLE, "There is no room. Come back in a moment.", 5)

    def _is_welcome(self, request: Request) -> bool:
        """Tell whether the page is ours, or one that is named. What has no origin is no browser."""
        origins = request.headers.get_all("Origin")
        if not origins:
            return True
        if len(origins) > 1:
            return False
        origin = origins[0].lower()
        host = urlsplit(origin).netloc
        return origin in self._origins or bool(host and host == ",".join(request.headers.get_all("Host")).lower())

    def _address(self, socket: ServerConnection, request: Request) -> str:
        """Return who calls: the peer, or whom the proxies that we trust say they speak for."""
        address = str(socket.remote_address[0]) if socket.remote_address else ""
        forwarded = ",".join(request.headers.get_all("X-Forwarded-For")).split(",")
        for earlier in reversed([part.strip() for part in forwarded if part.strip()]):
            if not self._is_trusted(address):
                break
            address = earlier
        return address[:64]

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted_proxies)
