"""Who is told of a run, besides its caller: for an operator's figures, and for traces."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog
from runwire.v1 import events_pb2 as pb

from engine_service.wire import Work


class Follower(Protocol):
    """Hears of one run. It can hold nothing up, and says nothing."""

    traceparent: str
    """What the spans of whatever the agent uses are below, if it makes spans."""

    def began(self) -> None:
        """Hear that its agent is at work."""
        ...

    def said(self, events: bytes, many: int) -> None:
        """Hear what happened, as event frames, and how many of them."""
        ...

    def ended(self, event: pb.Event) -> None:
        """Hear of its terminal event."""
        ...

    def left(self, why: str, usage: pb.Usage | None = None) -> None:
        """Hear that it is over here without a terminal event, and what its models took if nobody else will tell."""
        ...


Follow = Callable[[Work], Follower]
"""Makes the follower of a run that is about to begin."""


class Followers:
    """Several, as one. What one of them makes of what it hears harms neither the run nor the others."""

    def __init__(self, followers: Sequence[Follower] = ()) -> None:
        self._followers = list(followers)
        self.traceparent = next((each.traceparent for each in followers if each.traceparent), "")

    def began(self) -> None:
        """Tell all."""
        self._tell("began")

    def said(self, events: bytes, many: int) -> None:
        """Tell all."""
        self._tell("said", events, many)

    def ended(self, event: pb.Event) -> None:
        """Tell all."""
        self._tell("ended", event)

    def left(self, why: str, usage: pb.Usage | None = None) -> None:
        """Tell all."""
        self._tell("left", why, usage)

    def _tell(self, what: str, *about: Any) -> None:
        for each in tuple(self._followers):
            try:
                getattr(each, what)(*about)
            except Exception:  # noqa: BLE001 - an agent may say what nobody expects: it is followed no more
                structlog.get_logger().exception("a run is followed no more", by=type(each).__name__)
                self._followers.remove(each)
