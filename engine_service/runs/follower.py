"""Who is told of a run, besides its caller: for an operator's figures, and for traces."""

from collections.abc import Callable, Sequence
from typing import Protocol

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

    def left(self, why: str) -> None:
        """Hear that it is over here without a terminal event."""
        ...


Follow = Callable[[Work], Follower]
"""Makes the follower of a run that is about to begin."""


class Followers:
    """Several, as one."""

    def __init__(self, followers: Sequence[Follower] = ()) -> None:
        self._followers = followers
        self.traceparent = next((each.traceparent for each in followers if each.traceparent), "")

    def began(self) -> None:
        """Tell all."""
        for each in self._followers:
            each.began()

    def said(self, events: bytes, many: int) -> None:
        """Tell all."""
        for each in self._followers:
            each.said(events, many)

    def ended(self, event: pb.Event) -> None:
        """Tell all."""
        for each in self._followers:
            each.ended(event)

    def left(self, why: str) -> None:
        """Tell all."""
        for each in self._followers:
            each.left(why)
