"""Who is calling."""

import re
from collections.abc import Iterable
from typing import Protocol

import grpc
import jwt

from engine_service.keys import Keys
from engine_service.refusal import Refusal

ANONYMOUS = "anonymous"
PREFIX = "Bearer "
DEV = re.compile(r"dev:([\w.@+-]{1,64})")
LEEWAY = 30
"""Seconds that clocks may differ."""
MAX_TOKEN = 16 * 1024
MAX_USER = 256

Metadata = Iterable[tuple[str, str | bytes]]


class Identity(Protocol):
    """Says who is calling."""

    def user(self, metadata: Metadata) -> str:
        """Return who calls. Raises UNAUTHENTICATED."""
        ...


class DevelopmentIdentity:
    """Takes everybody's word for it: for a developer's own machine, where the engine listens on loopback alone."""

    def user(self, metadata: Metadata) -> str:
        """Return who calls: `alice` for the token `dev:alice`, `anonymous` for none. Raises UNAUTHENTICATED."""
        token = bearer(metadata)
        if token is None:
            return ANONYMOUS
        if found := DEV.fullmatch(token):
            return found[1]
        raise unauthenticated()


class JwtIdentity:
    """Believes a JSON Web Token that is signed with a key of ours, for us, by whom we expect, and not expired."""

    def __init__(self, keys: Keys, issuer: str | None, audience: str | None) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    def user(self, metadata: Metadata) -> str:
        """Return the token's subject. Raises UNAUTHENTICATED, whatever is wrong with it."""
        token = bearer(metadata)
        if token is None or len(token) > MAX_TOKEN:
            raise unauthenticated()
        try:
            key = self._keys.find(jwt.get_unverified_header(token).get("kid"))
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
            raise unauthenticated() from error
        user = str(claims["sub"])
        if not user or len(user) > MAX_USER:
            raise unauthenticated()
        return user


def bearer(metadata: Metadata) -> str | None:
    """Return the token of a call, if it has one."""
    for key, value in metadata:
        if key == "authorization":
            if isinstance(value, str) and value.startswith(PREFIX):
                return value.removeprefix(PREFIX)
            raise unauthenticated()
    return None


def unauthenticated() -> Refusal:
    """Say that the caller is not signed in. Always the same, whatever was wrong: a reason would help to guess."""
    return Refusal(grpc.StatusCode.UNAUTHENTICATED, "You are not signed in, or your sign-in has expired.")
