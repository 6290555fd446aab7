"""What engines share, as one of them sees it: runs' journals, where runs are, how many a user has, and how often."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from runwire.v1.engine_pb2 import RunInfo

from engine_service.wire import Checkpoint, Work


class GoneError(Exception):
    """What was asked for is not in the journal: no longer, or not yet."""


class FullError(Exception):
    """There is no room for another journal: none of a user's, or none at all."""

    def __init__(self, user_id: str = "") -> None:
        super().__init__(user_id)
        self.user_id = user_id


class Journal(Protocol):
    """One run's events, in the order of their numbers: the same bytes that go out."""

    @property
    def last(self) -> int:
        """The number of the newest event."""
        ...

    @property
    def size(self) -> int:
        """How many bytes are kept."""
        ...

    async def append(self, events: bytes, last: int) -> None:
        """Write down event frames, the newest of which has this number. Waits for room.

        Cancelling the wait leaves nothing of them behind.
        """
        ...

    def put(self, events: bytes, last: int) -> None:
        """Write down event frames for which there has to be room: the end of a run."""
        ...

    def seal(self, info: RunInfo) -> None:
        """Say that there will be no more, and what is known of the run now."""
        ...

    def check(self, after: int) -> None:
        """Raise GoneError if one cannot read on from here."""
        ...

    def save(self, checkpoint: Checkpoint, left: float, on_saved: Callable[[int], None]) -> None:
        """Keep what the run goes on from if its engine is lost, and how much time it has left then.

        Says that it is kept, and all events before, by its number.
        """
        ...

    def unsave(self) -> None:
        """Keep nothing any more of what it would go on from: its end is decided."""
        ...

    async def settle(self, left: float | None = None) -> None:
        """Wait until all is where it survives this engine, with how much time the run has left, if that is given."""
        ...

    def acknowledge(self, after: int) -> None:
        """Hear that all up to a position was delivered: that may be pushed out now, and nothing else.

        Raises GoneError.
        """
        ...

    async def read(self, after: int, most: int) -> tuple[bytes, int]:
        """Wait for what follows a position, and return it with its own; nothing once there will be no more.

        It is so many bytes at most, or a single event. Raises GoneError. Cancelling the wait loses nothing.
        """
        ...

    def lose(self) -> None:
        """Hear that the run is another engine's by now. Whoever reads hears it, too."""
        ...

    def forget(self) -> None:
        """Let go of everything."""
        ...


OpenJournal = Callable[[Work], Journal]
"""Opens a journal for a run. Raises FullError."""
Message = Mapping[str, Any]
"""What one engine says to another: what JSON holds."""


class AwayError(Exception):
    """The store, or whoever was asked through it, cannot be reached."""


class LostError(GoneError):
    """The run is another engine's by now."""


class TakenError(Exception):
    """There is a run of that id, or there are as many of a user's as there may be."""

    def __init__(self, *, exists: bool) -> None:
        super().__init__()
        self.exists = exists


class NotAdoptedError(Exception):
    """A run cannot go on here."""


class Place(NamedTuple):
    """Where a run is."""

    engine: str
    """That has it, or is about to: to go on with it, or to end it."""
    info: RunInfo
    """What was known of it when it began, or ended."""
    bases: str
    """With which position each epoch of its journal began."""
    is_lasting: bool
    """Whether it may outlive its caller, and its engine."""


class Left(NamedTuple):
    """What is left of a run whose engine is gone, where it can go on."""

    work: Work
    seconds: float
    """That it has left of its time."""
    window: float
    """Seconds that it outlives its caller."""
    journal: Journal
    leave: Callable[[], None]
    """Gives its place back."""


class Owner(Protocol):
    """An engine, as its store speaks to it."""

    async def hear(self, message: Message) -> Message:
        """Answer another engine."""
        ...

    def lapse(self, user_id: str, run_id: str) -> None:
        """Hear that a resumable run of its own is perhaps another's by now."""
        ...

    async def abandon(self, user_id: str, run_id: str) -> bool:
        """End a run of its own without a word, so that it can go on elsewhere. The store has all that it said then.

        False where it ends by itself.
        """
        ...

    def reserve(self, info: RunInfo, user_id: str) -> Callable[[], None] | None:
        """Hold a place for a run that may go on here, and return what gives it back; None if it can't."""
        ...

    def make_room(self, user_id: str) -> bool:
        """Forget something of a user's, or of anybody's, that is kept for absent callers; False if there is nothing."""
        ...

    async def adopt(self, left: Left) -> None:
        """Let one go on here. Raises NotAdoptedError, and then nothing has begun, and its place is given back."""
        ...

    def lose(self, user_id: str, run_id: str) -> None:
        """Hear that one is."""
        ...

    def end_of(self, info: RunInfo) -> bytes:
        """Return how a run ends whose engine is gone, as an event frame."""
        ...

    def renew(self, until: float) -> None:
        """Hear until when its resumable runs are its own, by the monotonic clock."""
        ...


class Tail(Protocol):
    """A journal that another engine writes."""

    async def read(self, after: int, most: int) -> tuple[bytes, int]:
        """Wait for what follows a position, as a journal's `read` does. Raises GoneError, and AwayError."""
        ...


class Store(Protocol):
    """What engines share."""

    engine: str
    """By what this engine is known in it."""

    @property
    def is_away(self) -> bool:
        """Whether it could not be reached a moment ago."""
        ...

    async def begin(self, owner: Owner) -> None:
        """Go to it. Raises AwayError, with what an operator is to do."""
        ...

    async def close(self) -> None:
        """Leave it: what is kept for others stays."""
        ...

    async def take(self, what: str, user_id: str) -> float:
        """Return 0 when a user may do something once more, and otherwise the seconds after which they may."""
        ...

    async def spend(self, user_id: str, tokens: int) -> int:
        """Count tokens that a user's runs have used, and return how many that are today, as UTC has it."""
        ...

    async def place(self, user_id: str, info: RunInfo, window: float) -> Callable[[], None]:
        """Hold a place for a run, of whose limits count, and return what gives it back.

        Raises TakenError, and for one that is resumable AwayError.
        """
        ...

    def open(self, work: Work) -> Journal:
        """Begin the journal of a resumable run that has a place. Raises FullError."""
        ...

    async def where(self, user_id: str, run_id: str) -> Place | None:
        """Tell where a user's run is. Raises AwayError."""
        ...

    async def everywhere(self, user_id: str) -> Mapping[str, Place]:
        """Tell where a user's runs are, by their ids. Raises AwayError."""
        ...

    def tail(self, user_id: str, run_id: str, place: Place) -> Tail:
        """Read the journal of a run of another engine."""
        ...

    async def ask(self, engine: str, message: Message) -> Message:
        """Ask another engine, and wait for what it says. Raises AwayError."""
        ...

    async def adopt(self, user_id: str, run_id: str, message: Message) -> bool:
        """Let a run go on here that an engine had which is gone, or gives it away; False where it can't."""
        ...

    async def hand_over(self, user_id: str, run_id: str, pays: str) -> None:
        """Let a run go on at another engine that would otherwise end here, if there is one that takes it."""
        ...
