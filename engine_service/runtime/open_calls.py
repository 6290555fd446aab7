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

    def __init__(self, attempt: int = 1) -> None:
        self._attempt = attempt
        self._names, self._tokens = itertools.count(1), itertools.count(1)
        self.open = set[int]()
        self.on_change: Callable[[], None] = lambda: None
        """Called when one begins, or ends."""

    def name(self) -> str:
        """Return an id that no other call of the run has that was named here."""
        return f"call-{next(self._names)}"

    def told(self, call_id: str) -> str:
        """Return an id as it is told: it is another one in each attempt, though the model may choose the same."""
        return call_id if self._attempt == 1 else f"{call_id}@{self._attempt}"

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
