"""Who is calling."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

import jwt
import structlog

from engine_service.calls.keys import Keys
from engine_service.runs.caller import Caller
from engine_service.runs.refusal import Code, Refusal, forbidden
from runwire.calling import ACTS_FOR, ACTS_FOR_BINARY
from runwire.service.rates import Rates
from runwire.service.settings import is_near

ANONYMOUS, OPERATOR = "anonymous", "operator"
SCHEME = "bearer "
DEV = re.compile(r"dev:([\w.@+-]{1,64})")
LEEWAY = 30
"""Seconds that clocks may differ."""
TOLD = 60
"""Lines a minute on why tokens are refused, for each reason."""
MAX_TOKEN = 16 * 1024
MAX_USER = 256

Metadata = Sequence[tuple[str, str | bytes]]
Context = Any
"""A call, as gRPC's servicers see it: its stubs have a type for each kind, and no name for what they share."""


class Identity(Protocol):
    """Says who is calling."""

    is_development: bool
    """Whether everybody is believed."""

    async def caller(self, said: Metadata, host: str) -> Caller:
        """Return who calls, by what they say and whence. Raises UNAUTHENTICATED, and PERMISSION_DENIED."""
        ...


class DevelopmentIdentity:
    """Takes everybody's word for it: on a developer's own machine, or a private network that was named."""

    is_development = True

    def __init__(self, network: str | None) -> None:
        self._network = network

    async def caller(self, said: Metadata, host: str) -> Caller:
        """Return who calls: `alice` for the token `dev:alice`, `anonymous` for none. Raises a Refusal."""
        token = bearer(said)
        if not is_near(host, self._network):
            raise unauthenticated()
        user = acts_for(said)
        if token is None and user is None:
            return Caller(ANONYMOUS)
        if not (token and (found := DEV.fullmatch(token))):
            raise unauthenticated()
        if user:  # whoever says their name is believed to be a service, too, but for what wants a scope of its own
            return Caller(_name(user), service=found[1], may_approve=False)
        return Caller(found[1], is_operator=found[1] == OPERATOR)


class Scopes(NamedTuple):
    """What claims are for, and which scopes let somebody do what; none where that is not said."""

    claims: tuple[str, ...] = ()
    agents_claim: str | None = None
    act: str | None = None
    approve: str | None = None
    operator: str | None = None


EVERYBODY = Scopes()


class JwtIdentity:
    """Believes a JSON Web Token that is signed with a key of ours, for us, by whom we expect, and not expired."""

    is_development = False

    def __init__(self, keys: Keys, issuer: str | None, audience: str | None, scopes: Scopes = EVERYBODY) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._told = Rates(TOLD)
        self._scopes = scopes

    async def caller(self, said: Metadata, host: str) -> Caller:  # noqa: ARG002 - they may come from anywhere
        """Return whom a token speaks of. Raises a Refusal."""
        claims = await self._claims(bearer(said))
        subject, scopes, known = _name(claims["sub"]), _words(claims, "scope", "scp"), self._scopes
        service, user = "", subject
        if named := acts_for(said):
            if known.act not in scopes:
                structlog.get_logger().info("acting for others refused", acting=subject)
                raise not_for_others()
            service, user = subject, _name(named)
        return Caller(
            user_id=user,
            service=service,
            claims={name: claims[name] for name in known.claims if name in claims},
            agents=_words(claims, known.agents_claim) if known.agents_claim else None,
            may_approve=not service or known.approve in scopes,
            is_operator=known.operator in scopes and not service,
        )

    async def _claims(self, token: str | None) -> dict[str, Any]:
        if token is None or len(token) > MAX_TOKEN:
            raise unauthenticated()
        try:
            key = await self._keys.find(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise unauthenticated()
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY,
                options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            if not self._told.take(str(error)):  # for whoever sets up keys; callers hear nothing
                structlog.get_logger().info("token refused", why=str(error))
            raise unauthenticated() from error
        return claims


def acts_for(metadata: Metadata) -> str | None:
    """Return the user for whom a service says it acts, if it says so. More than one is none that could be meant."""
    named = [value for key, value in metadata if key in {ACTS_FOR, ACTS_FOR_BINARY}]
    if not named:
        return None
    try:
        [user] = [each.decode() if isinstance(each, bytes) else each for each in named]
    except ValueError:  # too many, or no text
        raise not_for_others() from None
    if not user:
        raise not_for_others()
    return user


def bearer(metadata: Metadata) -> str | None:
    """Return the token of a call, if it has one. Its scheme may be written in any case."""
    for key, value in metadata:
        if key == "authorization":
            if isinstance(value, str) and value[: len(SCHEME)].lower() == SCHEME:
                return value[len(SCHEME) :]
            raise unauthenticated()
    return None


def _name(subject: object) -> str:
    """Return who somebody is. Raises UNAUTHENTICATED."""
    name = str(subject)
    if not name or len(name) > MAX_USER:
        raise unauthenticated()
    return name


def _words(claims: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    """Return what a claim lists: as providers write it, with spaces between, or as a list."""
    said = next((claims[name] for name in names if name in claims), ())
    words = said.split() if isinstance(said, str) else said
    return tuple(each for each in words if isinstance(each, str)) if isinstance(words, list | tuple) else ()


def of_call(context: Context) -> tuple[Metadata, str]:
    """Return what a call says of its caller, and whence it comes."""
    return tuple(context.invocation_metadata() or ()), host(context)


def host(context: Context) -> str:
    """Return the address that a call comes from; gRPC writes `ipv4:127.0.0.1:4711` and `ipv6:%5B::1%5D:4711`."""
    return unquote(str(context.peer())).partition(":")[2].rpartition(":")[0].strip("[]")


def not_for_others() -> Refusal:
    """Say that a caller may not act for others."""
    return forbidden("You may not act for others.", "NOT_FOR_OTHERS")


def unauthenticated() -> Refusal:
    """Say that the caller is not signed in. Always the same, whatever was wrong: a reason would help to guess."""
    return Refusal(Code.UNAUTHENTICATED, "You are not signed in, or your sign-in has expired.")
