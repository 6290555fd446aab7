"""A journal against a list: whatever is done to it in whatever order, it tells the same, or says that it can't."""

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from runwire.v1.engine_pb2 import RunInfo

from engine_service.stores.memory import GRAIN, MemoryJournal, MemoryJournals
from engine_service.stores.store import FullError, GoneError
from engine_service.wire import EVENT, frame

RUN, USER, ALL = 20_000, 45_000, 70_000
MOST_AT_ONCE = 40


class Written:
    """What a journal should be: every event that was written, and how far it was sent."""

    def __init__(self, user: str, journal: MemoryJournal) -> None:
        self.user = user
        self.journal = journal
        self.events: list[bytes] = []
        self.sent = 0
        self.longest = 0
        """Bytes of what was written at once."""
        self.sealed = False
        self.waiting: tuple[asyncio.Task[None], list[bytes]] | None = None

    def settle(self) -> None:
        """Take in what was waiting, and is written by now."""
        if self.waiting and self.waiting[0].done():
            self.waiting[0].result()
            self.events += self.waiting[1]
            self.waiting = None


class Journals(RuleBasedStateMachine):
    """Several journals of three users, on shelves that are soon full."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.made: list[Written] = []

    journals: Bundle[Written] = Bundle("journals")

    @initialize()
    def begin(self) -> None:
        self.store = MemoryJournals(RUN, USER, ALL)

    @rule(target=journals, user=st.sampled_from("abc"))
    def open(self, user: str) -> Any:
        try:
            journal = self.store.open(user)
        except FullError:
            users = [written for written in self.made if written.user == user]
            assert _unsent(users) + self.past(users) >= USER or _unsent(self.made) + self.past(self.made) >= ALL
            return multiple()
        self.made.append(Written(user, journal))
        return self.made[-1]

    def past(self, journals: list[Written]) -> int:
        """Return what may be kept of what was sent."""
        return sum(RUN // 2 + written.longest + GRAIN for written in journals)

    @rule(
        written=journals,
        sizes=st.lists(st.sampled_from([0, 1, 90, 130, 5_000, 30_000]), min_size=1, max_size=MOST_AT_ONCE),
    )
    def append(self, written: Written, sizes: list[int]) -> None:
        if written.waiting or written.sealed:
            return
        start = len(written.events)
        new = [frame(EVENT, b"%d " % (start + number) + b"x" * size) for number, size in enumerate(sizes)]
        writing = self.loop.create_task(written.journal.append(b"".join(new), start + len(new)))
        written.waiting = (writing, new)
        written.longest = max(written.longest, sum(map(len, new)))
        unsent = written.sent < start
        self.turn()
        assert unsent or written.waiting is None, "it waited although all was sent"

    @rule(written=journals)
    def stop_waiting(self, written: Written) -> None:
        """Cancel a wait: what waited was not written."""
        if written.waiting:
            written.waiting[0].cancel()
            written.waiting = None
            self.turn()

    @rule(written=journals)
    def seal(self, written: Written) -> None:
        if not written.waiting:
            if not written.sealed:
                written.events.append(frame(EVENT, b"end"))
                written.journal.put(written.events[-1], len(written.events))
            written.journal.seal(RunInfo())
            written.sealed = True

    @rule(written=journals, back=st.integers(0, 60), most=st.sampled_from([1, 1000, 64 * 1024]))
    def read(self, written: Written, back: int, most: int) -> None:
        """Read on from where the reader is, or from before that."""
        after = max(written.sent - back, 0)
        if after == len(written.events) and not written.sealed:
            return  # it would wait: there is nothing
        try:
            written.journal.acknowledge(after)
            read, position = self.loop.run_until_complete(written.journal.read(after, most))
        except GoneError:
            assert after < written.sent, "what was never sent is gone"
            return
        assert read == b"".join(written.events[after:position])
        assert position > after or (written.sealed and after == len(written.events))
        assert len(read) <= most or position == after + 1
        written.sent = max(written.sent, after)
        self.turn()

    @rule(written=journals)
    def deliver(self, written: Written) -> None:
        """Say that all was sent, as a reader does who asks for what comes next."""
        written.journal.acknowledge(len(written.events))
        written.sent = len(written.events)
        self.turn()

    @rule(written=journals, beyond=st.integers(1, 5))
    def read_beyond(self, written: Written, beyond: int) -> None:
        with pytest.raises(GoneError):
            self.loop.run_until_complete(written.journal.read(len(written.events) + beyond, 1))
        with pytest.raises(GoneError):
            written.journal.acknowledge(len(written.events) + beyond)

    @rule(written=consumes(journals))
    def forget(self, written: Written) -> None:
        if written.waiting:
            written.waiting[0].cancel()
            written.waiting = None
        written.journal.forget()
        self.made.remove(written)
        with pytest.raises(GoneError):
            self.loop.run_until_complete(written.journal.read(0, 1))
        self.turn()

    @precondition(lambda self: self.made)
    @invariant()
    def nobody_waits_without_need(self) -> None:
        """Who waits has something unsent, and somewhere there is no room for it."""
        for written in self.made:
            if written.waiting:
                assert written.sent < len(written.events)
                size = sum(map(len, written.waiting[1]))
                # What was sent can stay, if it is so close to what wasn't that there is no cut between.
                past = min(len(b"".join(written.events[: written.sent])), RUN // 2)
                assert past + written.longest + GRAIN + _unsent([written]) + size > RUN or any(
                    _unsent(kept) + size + self.past(kept) > limit for kept, limit in self.shared(written)
                )

    @invariant()
    def it_holds_what_it_says_and_no_more(self) -> None:
        for written in self.made:
            journal: Any = written.journal
            own, user, together = journal._shelves
            assert own.held == len(journal._data)
            for shared in (user, together):
                assert shared.held == sum(len(other._data) for other in (*shared.live, *shared.over))
            assert own.held <= max(RUN, RUN // 2 + 2 * written.longest) + GRAIN

    def shared(self, written: Written) -> list[tuple[list[Written], int]]:
        users = [other for other in self.made if other.user == written.user]
        return [(users, USER), (self.made, ALL)]

    def turn(self) -> None:
        """Let everybody do what they can."""
        for _ in range(3 * len(self.made) + 5):
            self.loop.run_until_complete(asyncio.sleep(0))
        for written in self.made:
            written.settle()

    def teardown(self) -> None:
        for written in list(self.made):
            self.forget(written)
        shelf: Any = self.store._all
        assert shelf.held == 0
        assert not shelf.live
        assert not shelf.over
        assert not shelf.waiting
        assert not self.store._users
        self.loop.close()


def _unsent(kept: list[Written]) -> int:
    return sum(len(b"".join(written.events[written.sent :])) for written in kept)


TestJournals = Journals.TestCase
TestJournals.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def small(number: int, size: int = 100) -> bytes:
    """Write an event frame of exactly so many bytes."""
    return frame(EVENT, (b"%d " % number).ljust(size - (2 if size < 130 else 3), b"x"))


async def told(journal: MemoryJournal, numbers: range) -> None:
    """Write events of 100 bytes, each by itself, to a reader who follows."""
    for number in numbers:
        await journal.append(small(number), number)
        journal.acknowledge(number)


@pytest.mark.parametrize("most", [1, 99, 100, 199, 200, 4_095, 4_100, 5_000, 64 * 1024])
async def test_from_every_position(most: int) -> None:
    """From wherever one reads, one gets what follows: as many events as are allowed, or up to where it can be cut."""
    journal = MemoryJournals(RUN, USER, ALL).open("a")
    await told(journal, range(1, 301))
    first = next(after for after in range(300) if not _is_gone(journal, after))
    assert 0 < first <= 300 - RUN // 2 // 100  # half of the room is for what was sent
    assert journal.size == (300 - first) * 100 <= RUN
    for after in (*range(first, 300), *range(299, first - 1, -1)):
        events, position = await journal.read(after, most)
        assert events == b"".join(small(number) for number in range(after + 1, position + 1))
        assert after < position <= max(after + 1, after + most // 100)
        # It may end earlier, where the journal can be cut without looking at its events: never by more than that.
        assert position == 300 or position > after + (most - 2 * GRAIN) // 100
    assert _is_gone(journal, first - 1)


def _is_gone(journal: MemoryJournal, after: int) -> bool:
    try:
        journal.check(after)
    except GoneError:
        return True
    return False


async def _waits(journal: MemoryJournal, events: bytes, last: int) -> bool:
    """Tell whether there is no room for events. If there is, they are written."""
    writing = asyncio.create_task(journal.append(events, last))
    for _ in range(3):
        await asyncio.sleep(0)
    if writing.done():
        return False
    writing.cancel()
    await asyncio.wait((writing,))
    return True


@pytest.mark.parametrize("bounds", [(1_000, 9_999, 9_999), (9_999, 1_000, 9_999), (9_999, 9_999, 1_000)])
async def test_room_to_the_byte(bounds: tuple[int, int, int]) -> None:
    """As much as there is room for is written, and not a byte more, whichever bound it is."""
    journal = MemoryJournals(*bounds).open("a")
    await journal.append(small(1, 900), 1)
    assert await _waits(journal, small(2, 101), 2)
    assert not await _waits(journal, small(2, 100), 2)
    assert journal.size == 1_000
    assert await _waits(journal, small(3, 10), 3)
    journal.acknowledge(2)  # whoever follows is never held up
    assert not await _waits(journal, small(3, 10), 3)


@pytest.mark.parametrize("together", [False, True])
async def test_another_journal_needs_a_byte(*, together: bool) -> None:
    """Where a byte is free another journal can be opened; where none is, it says whose bound that is."""
    store = MemoryJournals(RUN, *((USER, 1_000) if together else (1_000, ALL)))
    journal = store.open("a")
    await journal.append(small(1, 999), 1)
    store.open("a").forget()
    journal.put(small(2, 4)[:1], 2)
    with pytest.raises(FullError) as full:
        store.open("a")
    assert full.value.user_id == ("" if together else "a")
    if not together:
        store.open("b")


async def test_what_is_over_goes_first() -> None:
    """Where there is no room, what was sent of runs that are over goes before what was sent of others; and no more."""
    store = MemoryJournals(RUN, USER, 10_000)
    live, over = store.open("a"), store.open("a")
    await told(over, range(1, 41))
    await told(live, range(1, 41))
    over.seal(RunInfo())
    third = store.open("b")
    await third.append(small(1, 4_000), 1)
    assert (over.size < 4_000, live.size) == (True, 4_000)
    assert over.size + live.size + third.size <= 10_000
    assert not _is_gone(live, 0)


async def test_who_waits_longest_is_next() -> None:
    """Room that comes free goes to whoever waits for it longest."""
    store = MemoryJournals(RUN, USER, 10_000)
    full = store.open("a")
    await full.append(small(1, 9_900), 1)
    order = list[str]()
    waiting = []
    for name in ("first", "second", "third"):
        journal = store.open(name)
        await journal.append(small(1, 10), 1)

        async def write(journal: MemoryJournal = journal, name: str = name) -> None:
            await journal.append(small(2, 3_000), 2)
            order.append(name)

        waiting.append(asyncio.create_task(write()))
        await asyncio.sleep(0)
    full.forget()
    await asyncio.wait_for(asyncio.gather(*waiting), 20)
    assert order == ["first", "second", "third"]


async def test_readers_hear_of_news_and_of_the_end() -> None:
    """A reader waits for what comes, and hears the end once; one whose journal is forgotten hears that."""
    journal = MemoryJournals(RUN, USER, ALL).open("a")
    reading = asyncio.create_task(journal.read(0, 1000))
    await asyncio.sleep(0)
    assert not reading.done()
    journal.put(small(1), 1)
    assert await reading == (small(1), 1)
    assert journal.last == 1
    reading = asyncio.create_task(journal.read(1, 1000))
    await asyncio.sleep(0)
    journal.seal(RunInfo())
    assert await reading == (b"", 1)
    journal.forget()
    with pytest.raises(GoneError):
        journal.check(1)
    journal.put(small(2), 2)
    assert (journal.size, journal.last) == (0, 1)
