"""Calls to models that the broker has carried, and that nobody in the run tells of."""

from collections.abc import Callable, Iterable

from runwire.v1.events_pb2 import ModelCalled

Tell = Callable[[Iterable[ModelCalled]], None]


class Brokered:
    """Tells of the broker's calls, unless the agent tells of its own.

    A framework counts a call after it has ended, and the broker's word comes earlier: it is held back until the next
    one, or the run's end.
    """

    def __init__(self) -> None:
        self._held: list[ModelCalled] = []
        self._tell: Tell | None = None
        self.is_needless = False
        """Whether the agent tells of its calls."""
        self.catch_up: Callable[[], None] = _nothing
        """Takes in what the engine has said by now."""

    def begin(self, tell: Tell) -> None:
        """Learn how the run tells of calls."""
        self._tell = tell

    def hear(self, body: bytes) -> None:
        """Hear of a call."""
        self._let_go()
        self._held = [ModelCalled.FromString(body)]

    def finish(self) -> None:
        """Tell of what is left, before the run's end."""
        self.catch_up()
        self._let_go()
        self._tell = None

    def _let_go(self) -> None:
        due, self._held = self._held, []
        if self._tell and due and not self.is_needless:
            self._tell(due)


def _nothing() -> None:
    pass
