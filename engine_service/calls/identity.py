"""Who is calling."""

import re
from collections.abc import Iterable
from typing import Any, Protocol
from urllib.parse import unquote

import jwt
import structlog

from engine_service.calls.keys import Keys
from engine_service.runs.refusal import Code, Refusal
from runwire.service.settings import is_near

ANONYMOUS = "anonymous"
SCHEME = "bearer "
DEV = re.compile(r"dev:([\w.@+-]{1,64})")
LEEWAY = 30
"""Seconds that clocks may differ."""
MAX_TOKEN = 16 * 1024
MAX_USER = 256

Metadata = Iterable[tuple[str, str | bytes]]
Context = Any
"""A call, as gRPC's servicers see it: its stubs have a type for each kind, and no name for what they share."""


class Identity(Protocol):
    """Says who is calling."""

    is_development: bool
    """Whether everybody is believed."""

    async def user(self, context: Context) -> str:
        """Return who calls. Raises UNAUTHENTICATED."""
        ...


class DevelopmentIdentity:
    """Takes everybody's word for it: on a developer's own machine, or a private network that was named."""

    is_development = True

    def __init__(self, network: str | None) -> None:
        self._network = network

    async def user(self, context: Context) -> str:
        """Return who calls: `alice` for the token `dev:alice`, `anonymous` for none. Raises UNAUTHENTICATED."""
        token = bearer(context.invocation_metadata() or ())
        if not is_near(host(context), self._network):
            raise unauthenticated()
        if token is None:
            return ANONYMOUS
        if found := DEV.fullmatch(token):
            return found[1]
        raise unauthenticated()


class JwtIdentity:
    """Believes a JSON Web Token that is signed with a key of ours, for us, by whom we expect, and not expired."""

    is_development = False

    def __init__(self, keys: Keys, issuer: str | None, audience: str | None) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    async def user(self, context: Context) -> str:
        """Return the token's subject. Raises UNAUTHENTICATED, whatever is wrong with it."""
        token = bearer(context.invocation_metadata() or ())
        if token is None or len(token) > MAX_TOKEN:
            raise unauthenticated()
        try:
            key = await self._keys.find(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise unauthenticated()
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY,
                options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            structlog.get_logger().info(
                "token refused", why=str(error)
            )  # for whoever sets up keys; callers hear nothing
            raise unauthenticated() from error
        user = str(claims["sub"])
        if not user or len(user) > MAX_USER:
            raise unauthenticated()
        return user


def bearer(metadata: Metadata) -> str | None:
    """Return the token of a call, if it has one. Its scheme may be written in any case."""
    for key, value in metadata:
        if key == "authorization":
            if isinstance(value, str) and value[: len(SCHEME)].lower() == SCHEME:
                return value[len(SCHEME) :]
            raise unauthenticated()
    return None


def host(context: Context) -> str:
    """Return the address that a call comes from; gRPC writes `ipv4:127.0.0.1:4711` and `ipv6:%5B::1%5D:4711`."""
    return unquote(str(context.peer())).partition(":")[2].rpartition(":")[0].strip("[]")


def unauthenticated() -> Refusal:
    """Say that the caller is not signed in. Always the same, whatever was wrong: a reason would help to guess."""
    return Refusal(Code.UNAUTHENTICATED, "You are not signed in, or your sign-in has expired.")
