"""How a run reaches model servers without their keys: the broker's address, and a token that is worth one run.

Clients are made when modules are imported, of a placeholder, and the token is put into them in the run.
"""

import gc
import os
from collections.abc import Iterable
from typing import Any

from engine_service.wire import PLACEHOLDER

KEY = "{}_API_KEY"
ADDRESSES = ("{}_BASE_URL", "{}_API_BASE")
"""How SDKs call what they read, each of its own provider."""


class Credentials:
    """What a process shows to the broker."""

    def __init__(self, upstreams: Iterable[str], broker: str) -> None:
        self._upstreams = tuple(upstreams)
        self._broker = broker
        self._clients: list[Any] = []

    def announce(self) -> None:
        """Let SDKs find the broker, for clients that are made from now on."""
        for name in self._upstreams:
            for variable in ADDRESSES:
                os.environ[_variable(variable, name)] = f"http://{self._broker}/{name}"
            os.environ[_variable(KEY, name)] = PLACEHOLDER

    def find(self) -> None:
        """Find the clients that there are. It takes too long for each run to do."""
        packages = {name.replace("-", "_") for name in self._upstreams}
        if packages:
            self._clients = [each for each in gc.get_objects() if _package(each) in packages and _has_placeholder(each)]

    def take(self, token: str) -> None:
        """Be a run: show its token from now on."""
        for name in self._upstreams if token else ():
            os.environ[_variable(KEY, name)] = token
        for client in self._clients if token else ():
            client.api_key = token


def _variable(variable: str, name: str) -> str:
    return variable.format(name.upper().replace("-", "_"))


def _package(found: object) -> str:
    return str(getattr(type(found), "__module__", "")).partition(".")[0]


def _has_placeholder(found: object) -> bool:
    return getattr(found, "__dict__", {}).get("api_key") == PLACEHOLDER
