"""The calls of tools of one run that are open, whichever agent's they are."""

import itertools
from collections.abc import Callable
from contextvars import ContextVar

AROUND: ContextVar[tuple[str, ...]] = ContextVar("AROUND", default=())
"""The calls that we are in, the innermost last."""


class OpenCalls:
    """Their ids, and names for new ones."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.ids = set[str]()
        self.on_change: Callable[[], None] = lambda: None
        """Called when one begins, or ends."""

    def name(self) -> str:
        """Return an id that no other call of the run has."""
        return f"call-{next(self._numbers)}"

    def begin(self, call_id: str) -> None:
        """Hear that a tool is called."""
        self.ids.add(call_id)
        self.on_change()

    def end(self, call_id: str) -> None:
        """Hear that a call is over."""
        self.ids.discard(call_id)
        self.on_change()
