"""Model servers, as an operator names them."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from runwire.service.settings import is_loopback

NAME = re.compile(r"[a-z][a-z0-9-]*")
BEARER = "bearer"
USUALLY = {"anthropic": "x-api-key", "azure": "api-key"}
"""How keys are sent, where nobody says: as a bearer's, but for those who do as no other does."""
TOOLS, ADDRESSES = "tools", "addresses"
"""What may be allowed: that a provider uses tools of its own, and fetches addresses."""


@dataclass(frozen=True)
class Upstream:
    """A model server, and what may be asked of it."""

    name: str
    url: str
    key_file: str = ""
    auth: str = BEARER
    """How its key is sent: as a bearer's, or in a header of this name."""
    allowed: tuple[str, ...] = ()
    """Ways out that are let be."""


def named(
    urls: Mapping[str, str], keys: Mapping[str, str], auth: Mapping[str, str], allow: Mapping[str, str]
) -> tuple[Upstream, ...]:
    """Return the model servers that are named. Raises ValueError with what is wrong."""
    for what, about in (("UPSTREAM_KEYS", keys), ("UPSTREAM_AUTH", auth), ("UPSTREAM_ALLOW", allow)):
        if unknown := about.keys() - urls.keys():
            raise ValueError(f"{what} has {min(unknown)!r}, which UPSTREAMS has not")
    return tuple(
        _checked(
            Upstream(
                name,
                url.rstrip("/"),
                keys.get(name, ""),
                auth.get(name, USUALLY.get(name, BEARER)),
                tuple(allow[name].split("+")) if name in allow else (),
            )
        )
        for name, url in urls.items()
    )


def _checked(upstream: Upstream) -> Upstream:
    name, parts = upstream.name, urlsplit(upstream.url)
    if not NAME.fullmatch(name) or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"UPSTREAMS={name}=…: must be NAME=https://…, with a name of small letters")
    if parts.scheme == "http" and upstream.key_file and not is_loopback(parts.hostname):
        raise ValueError(f"UPSTREAMS={name}=…: with a key it must begin with https, or the key goes in clear")
    if upstream.key_file and not os.access(upstream.key_file, os.R_OK):
        raise ValueError(f"UPSTREAM_KEYS: {upstream.key_file}, with the key of {name}, isn't there, or cannot be read")
    if not {TOOLS, ADDRESSES}.issuperset(upstream.allowed):
        raise ValueError(f"UPSTREAM_ALLOW={name}=…: must be {ADDRESSES}, {TOOLS}, or both, joined by +")
    return upstream
