"""The calls of tools of one run that are open, whichever agent's they are."""

import itertools
from collections.abc import Callable
from contextvars import ContextVar
from typing import NamedTuple


class Around(NamedTuple):
    """A call that we are in."""

    call_id: str
    token: int


AROUND: ContextVar[tuple[Around, ...]] = ContextVar("AROUND", default=())
"""The calls that we are in, the innermost last."""


class OpenCalls:
    """What is open, by tokens: the ids of two agents' calls may be the same, where their models chose them."""

    def __init__(self) -> None:
        self._names, self._tokens = itertools.count(1), itertools.count(1)
        self.open = set[int]()
        self.on_change: Callable[[], None] = lambda: None
        """Called when one begins, or ends."""

    def name(self) -> str:
        """Return an id that no other call of the run has that was named here."""
        return f"call-{next(self._names)}"

    def begin(self) -> int:
        """Hear that a tool is called, and return the call's token."""
        token = next(self._tokens)
        self.open.add(token)
        self.on_change()
        return token

    def end(self, token: int) -> None:
        """Hear that a call is over."""
        self.open.discard(token)
        self.on_change()
