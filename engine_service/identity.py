"""Who is calling."""

from collections.abc import Iterable
from typing import Protocol

import grpc

from engine_service.refusal import Refusal

ANONYMOUS = "anonymous"
PREFIX = "Bearer "
DEV = "dev:"

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
        if token.startswith(DEV) and token != DEV:
            return token.removeprefix(DEV)
        raise unauthenticated()


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
