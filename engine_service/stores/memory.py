"""What one engine has for itself: journals in its own memory, and nobody to share them with."""

import asyncio
import datetime
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Mapping
from itertools import chain, islice
from typing import NamedTuple
from weakref import WeakValueDictionary

from runwire.v1.engine_pb2 import RunInfo

from engine_service.stores.store import AwayError, FullError, GoneError, Journal, Message, Owner, Place, Tail
from engine_service.wire import Checkpoint, Work, ends
from runwire.service.rates import Rates

GRAIN = 4 * 1024
"""Bytes between two positions at which a journal can be cut without looking at its events, or more."""


class Mark(NamedTuple):
    """Where an event ends."""

    seq: int
    at: int


class Shelf:
    """Journals that share a bound."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0
        self.live = dict["MemoryJournal", None]()
        self.over = dict["MemoryJournal", None]()
        self.waiting = dict["MemoryJournal", None]()
        """Those that are to be written to and have no room, in the order in which they get it."""

    def fits(self, size: int) -> bool:
        """Push out what was sent until there is room, of runs that are over first, and tell whether there is."""
        if self.held + size > self._limit:
            for journal in chain(tuple(self.over), tuple(self.live)):
                journal.push_out(self.held + size - self._limit)
                if self.held + size <= self._limit:
                    break
        return self.held + size <= self._limit

    def ring(self) -> None:
        """Let the one that waits longest look whether there is room now."""
        for journal in self.waiting:
            journal.look.set()
            break


Room = tuple[tuple[Shelf, ...], int]
"""Where a journal is kept, and how much of what was sent."""


class MemoryStore:
    """What an engine has that shares nothing."""

    engine = ""
    is_away = False

    def __init__(self, journals: "MemoryJournals", per_minute: Mapping[str, int]) -> None:
        self._journals = journals
        self._rates = {what: Rates(many) for what, many in per_minute.items()}
        self._day: datetime.date | None = None
        self._spent = Counter[str]()

    async def begin(self, owner: Owner) -> None:
        """There is nowhere to go."""

    async def close(self) -> None:
        """There is nothing to leave."""

    async def take(self, what: str, user_id: str) -> float:
        """Return 0 when a user may do something once more, and otherwise the seconds after which they may."""
        return self._rates[what].take(user_id)

    async def spend(self, user_id: str, tokens: int) -> int:
        """Count tokens that a user's runs have used, and return how many that are today."""
        today = datetime.datetime.now(datetime.UTC).date()
        if today != self._day:
            self._day, self._spent = today, Counter()
        self._spent[user_id] += tokens
        return self._spent[user_id]

    async def place(self, user_id: str, info: RunInfo, window: float) -> Callable[[], None]:  # noqa: ARG002
        """Hold no place: the engine's own book is all there is."""
        return _nothing

    def open(self, work: Work) -> Journal:
        """Begin a journal. Raises FullError."""
        return self._journals.open(work.pays)

    async def where(self, user_id: str, run_id: str) -> Place | None:  # noqa: ARG002
        """Tell that there are no others."""
        return None

    async def everywhere(self, user_id: str) -> Mapping[str, Place]:  # noqa: ARG002
        """Tell that there are no others."""
        return {}

    def tail(self, user_id: str, run_id: str, place: Place) -> Tail:
        """Read nothing: there are no others."""
        raise NotImplementedError

    async def ask(self, engine: str, message: Message) -> Message:  # noqa: ARG002
        """Ask nobody."""
        raise AwayError

    async def adopt(self, user_id: str, run_id: str, message: Message) -> bool:  # noqa: ARG002
        """Adopt nothing: there are no others."""
        return False

    async def hand_over(self, user_id: str, run_id: str, pays: str) -> None:
        """Hand nothing over: there are no others."""


class MemoryJournals:
    """Keeps journals in memory: so many bytes a run, so many a user, and so many all together."""

    def __init__(self, per_run: int, per_user: int, together: int) -> None:
        self._per_run = per_run
        self._per_user = per_user
        self._users = WeakValueDictionary[str, Shelf]()  # each is there as long as one of its journals is
        self._all = Shelf(together)

    @property
    def held(self) -> int:
        """How many bytes they hold."""
        return self._all.held

    def open(self, user_id: str) -> "MemoryJournal":
        """Begin a journal. Raises FullError."""
        return MemoryJournal(*self.room(user_id))

    def room(self, user_id: str) -> Room:
        """Return where a journal of a user's is kept, and how much of what was sent. Raises FullError."""
        user = self._users.get(user_id) or Shelf(self._per_user)
        if not user.fits(1):
            raise FullError(user_id)
        if not self._all.fits(1):
            raise FullError
        self._users[user_id] = user
        # What was sent may not have arrived. Half of the room is for that, if the run has said so much.
        return (Shelf(self._per_run), user, self._all), self._per_run // 2


class MemoryJournal:
    """One run's events, in memory."""

    def __init__(self, shelves: tuple[Shelf, ...], past: int) -> None:
        self._shelves = shelves
        self._past = past  # bytes that are kept of what was sent, as long as there may be more
        self._data = bytearray()
        self._marks = deque[Mark]()  # where it can be cut, oldest first; the last one is the end
        self._start = Mark(0, 0)  # what came up to here was pushed out
        self._end = Mark(0, 0)
        self._shown = Mark(0, 0)  # up to where it can be read
        self._read = Mark(0, 0)  # where the reader went on last: found without looking for it
        self._sent = Mark(0, 0)
        self._is_sealed = self._forgotten = False
        self._news = asyncio.Event()
        self.look = asyncio.Event()
        """Set when there may be room."""
        for shelf in shelves:
            shelf.live[self] = None

    @property
    def last(self) -> int:
        """The number of the newest event."""
        return self._end.seq

    @property
    def size(self) -> int:
        """How many bytes are kept."""
        return len(self._data)

    async def append(self, events: bytes, last: int) -> None:
        """Write down event frames, the newest of which has this number. Waits for room.

        A run all of whose events were sent need not wait: while somebody listens, other runs can't hold it up.
        """
        try:
            while (full := self._full(len(events))) and self._sent.seq < self.last:
                self._leave_queues(but=full)
                full.waiting[self] = None
                self.look.clear()
                await self.look.wait()
            self.put(events, last)
        finally:
            self._leave_queues()

    def put(self, events: bytes, last: int) -> None:
        """Write down event frames for which there has to be room."""
        if self._forgotten:
            return
        self._data += events
        self._end = Mark(last, self._end.at + len(events))
        before = self._marks[-2].at if len(self._marks) > 1 else self._start.at
        if self._marks and self._end.at - before <= GRAIN:
            self._marks.pop()
        self._marks.append(self._end)
        for shelf in self._shelves:
            shelf.held += len(events)
        self._publish()

    def _publish(self) -> None:
        """Let what was written be read."""
        self._show(self._end)

    def _show(self, mark: Mark) -> None:
        self._shown = mark
        self._news.set()

    def seal(self, info: RunInfo) -> None:  # noqa: ARG002 - it is for others
        """Say that there will be no more."""
        self._is_sealed = True
        self._past = 0
        for shelf in self._shelves:
            if self in shelf.live:
                del shelf.live[self]
                shelf.over[self] = None
            shelf.ring()
        self._news.set()

    def save(self, checkpoint: Checkpoint, left: float, on_saved: Callable[[int], None]) -> None:  # noqa: ARG002
        """Keep nothing: what is here is lost with the engine."""
        on_saved(checkpoint.number)

    def unsave(self) -> None:
        """Keep nothing: nothing was kept."""

    async def settle(self, left: float | None = None) -> None:
        """Wait for nothing: nothing survives this engine."""

    def check(self, after: int) -> None:
        """Raise GoneError if one cannot read on from here."""
        if self._forgotten or not self._start.seq <= after <= self._shown.seq:
            raise GoneError

    def acknowledge(self, after: int) -> None:
        """Hear that all up to a position was delivered: that may be pushed out now, and nothing else."""
        self.check(after)
        if after > self._sent.seq:
            self._sent = Mark(after, self._find(after))
            self.look.set()
            for shelf in self._shelves:
                shelf.ring()

    async def read(self, after: int, most: int) -> tuple[bytes, int]:
        """Wait for what follows a position, and return it with its own; nothing once there will be no more."""
        self.check(after)
        begin = self._find(after)
        while after >= self._shown.seq and not (self._is_sealed and self._shown == self._end):
            self._news.clear()
            await self._news.wait()
            self.check(after)
        self._read = end = self._cut(Mark(after, begin), self._shown, most)
        return bytes(self._data[begin - self._start.at : end.at - self._start.at]), end.seq

    def push_out(self, size: int) -> None:
        """Drop so many bytes of events that were sent, or what there is of them beyond those that are kept."""
        enough = self._start.at + size
        start = self._start
        while self._marks and self._marks[0].at <= self._sent.at - self._past and start.at < enough:
            start = self._marks.popleft()
        self._drop(start)

    def lose(self) -> None:
        """Hear what cannot be: there are no others."""

    def forget(self) -> None:
        """Let go of everything."""
        self._forgotten = True
        self._marks.clear()
        self._drop(self._end)
        self._leave_queues()
        for shelf in self._shelves:
            shelf.live.pop(self, None)
            shelf.over.pop(self, None)
        self._shelves = ()
        self._news.set()

    def _leave_queues(self, but: Shelf | None = None) -> None:
        for shelf in self._shelves:
            if shelf is not but and self in shelf.waiting:
                del shelf.waiting[self]
                shelf.ring()  # there may be room for the next one

    def _full(self, size: int) -> Shelf | None:
        """Return what there is no room on."""
        return next((shelf for shelf in self._shelves if not shelf.fits(size)), None)

    def _drop(self, start: Mark) -> None:
        size = start.at - self._start.at
        if size:
            del self._data[:size]
            self._start = start
            for shelf in self._shelves:
                shelf.held -= size
                shelf.ring()

    def _find(self, after: int) -> int:
        """Return where a position is."""
        if self._read.seq == after and self._read.at >= self._start.at:
            return self._read.at
        near = bisect_right(self._marks, after, key=_seq)
        mark = self._marks[near - 1] if near else self._start
        if mark.seq == after:
            return mark.at
        found = islice(ends(self._data, mark.at - self._start.at), after - mark.seq - 1, None)
        return self._start.at + next(found)

    def _cut(self, begin: Mark, end: Mark, most: int) -> Mark:
        """Return where to stop reading that begins here, and goes up to there at most."""
        enough = begin.at + most
        if end.at <= enough:
            return end
        near = bisect_right(self._marks, enough, key=_at)
        if near and self._marks[near - 1].seq > begin.seq:
            return self._marks[near - 1]
        cut = begin
        for at in ends(self._data, begin.at - self._start.at):
            if cut is not begin and self._start.at + at > enough:
                break
            cut = Mark(cut.seq + 1, self._start.at + at)
        return cut


def _nothing() -> None:
    pass


def _seq(mark: Mark) -> int:
    return mark.seq


def _at(mark: Mark) -> int:
    return mark.at
