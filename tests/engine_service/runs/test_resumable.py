"""Runs that outlive their callers, with workers by hand and journals in memory."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import RunResponse

from engine_service.runs.admission import Admission
from engine_service.runs.quota import Quota
from engine_service.runs.refusal import Code, Refusal
from engine_service.runs.resumable import FIRST, MAX_KEPT, MOST, Resumable, Resumables
from engine_service.runs.run import CANCELLED, Run
from engine_service.stores.memory import MemoryJournals, MemoryStore
from engine_service.workers import WorkerError
from tests.support.services import until
from tests.support.times import PATIENCE
from tests.support.workers import HandWorker, HandWorkers, work

LONG = 60.0
MIB = 1024 * 1024


class House:
    """Resumable runs, with all that they need."""

    def __init__(self, per_run: int = MIB, per_user: int = 4 * MIB, together: int = 8 * MIB) -> None:
        self.workers = HandWorkers()
        self.admission = Admission(1000, 1000)
        store = MemoryStore(MemoryJournals(per_run, per_user, together), {})
        self.resumables = Resumables(self.admission, Quota(store, 1000), store.open)

    async def begin(
        self, run_id: str = "1", user_id: str = "alice", window: float = LONG, seconds: float = LONG
    ) -> tuple[Resumable, HandWorker, Run]:
        run = Run(work(user_id, run_id), self.workers, max_event_bytes=MIB)
        resumable = await self.resumables.begin(run, window, seconds)
        return resumable, self.workers.given[-1], run

    async def over(self, run_id: str = "1", user_id: str = "alice", window: float = LONG, said: str = "x") -> Resumable:
        """Begin a run, and let it end."""
        resumable, worker, _ = await self.begin(run_id, user_id, window)
        worker.say(said)
        worker.end()
        await until(lambda: resumable.is_over)
        return resumable


@asynccontextmanager
async def reading(resumable: Resumable, after: int = 0) -> AsyncGenerator[asyncio.Queue[bytes]]:
    """Read a run as a call does, until it ends."""
    told: asyncio.Queue[bytes] = asyncio.Queue()

    async def read() -> None:
        async with resumable.attached(after) as read_on:
            while events := await read_on():
                told.put_nowait(events)
            told.put_nowait(b"")

    task = asyncio.create_task(read())
    try:
        yield told
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Refusal):
            await task


async def all_of(resumable: Resumable, after: int = 0) -> list[pb.Event]:
    """Read a run to its end."""
    told = b""
    async with asyncio.timeout(PATIENCE), resumable.attached(after) as read_on:
        while events := await read_on():
            told += events
    return list(RunResponse.FromString(told).events)


async def test_told_again_as_often_as_one_asks() -> None:
    """What was said is told again, from any position, as long as the window says."""
    house = House()
    over = await house.over()
    assert [event.seq for event in await all_of(over)] == [1, 2]
    assert [event.seq for event in await all_of(over, 1)] == [2]
    assert await all_of(over, 2) == []
    assert house.resumables.find("alice", "1") is over
    assert house.resumables.find("bob", "1") is None
    assert over.is_left_behind


@pytest.mark.parametrize("after", [3, 100])
async def test_what_was_never_said(after: int) -> None:
    """A position that isn't there, not yet, is refused."""
    over = await House().over()
    with pytest.raises(Refusal) as raised:
        await all_of(over, after)
    assert raised.value.code == Code.OUT_OF_RANGE


async def test_another_takes_over() -> None:
    """Whoever read until now is sent away, and the run goes on for the other."""
    resumable, worker, _ = await House().begin()

    async def read_until_another_does() -> None:
        async with asyncio.timeout(PATIENCE), resumable.attached(0) as read_on:
            assert await read_on()
            assert resumable.has_reader
            async with reading(resumable) as other:
                assert await other.get()
                await read_on()

    worker.say()
    with pytest.raises(Refusal) as raised:
        await read_until_another_does()
    assert raised.value.code == Code.ABORTED
    assert not resumable.is_over


async def test_its_place_is_its_own() -> None:
    """It holds its place until it is over, with or without a caller."""
    house = House()
    resumable, worker, run = await house.begin()
    assert house.admission.find("alice", "1") is run
    async with reading(resumable):
        pass
    assert house.admission.find("alice", "1") is run
    worker.end()
    await until(lambda: resumable.is_over)
    assert house.admission.find("alice", "1") is None
    assert worker.closed == 1


async def test_without_a_caller_for_too_long() -> None:
    """A run that nobody joins within the window is cancelled; and forgotten as long after its end."""
    house = House()
    resumable, worker, run = await house.begin(window=0.03)
    async with reading(resumable):
        await asyncio.sleep(0.06)  # longer than the window: while there is a caller it doesn't count
        assert not run.is_stopped
    await until(lambda: run.is_stopped)
    await until(lambda: resumable.is_over)
    assert worker.graces[0] > 0
    assert house.resumables.find("alice", "1") is resumable
    await until(lambda: house.resumables.find("alice", "1") is None)
    with pytest.raises(Refusal, match="not there"):
        await all_of(resumable)


async def test_told_to_stop_while_there_is_no_room() -> None:
    """A run that waits for room ends when it is told to, and its end is there."""
    house = House(per_run=10_000)
    resumable, worker, run = await house.begin()
    async with resumable.attached(0) as read_on:
        worker.say("x" * 9_000)
        assert await read_on()  # what follows was not sent: there is no room for it
        for _ in range(5):
            worker.say("y" * 4_000)
        await until(lambda: run.count == 2)
        run.stop(CANCELLED)
        await until(lambda: resumable.is_over)
        told = b""
        while events := await read_on():
            told += events
    assert RunResponse.FromString(told).events[-1].HasField("agent_cancelled")


async def test_messages_grow() -> None:
    """The first message after a connection is small; each may be twice as large as the one before, up to a bound."""
    house = House()
    resumable, worker, _ = await house.begin()
    for _ in range(3_000):
        worker.say("x" * 70)
    worker.end()
    await until(lambda: resumable.is_over)
    sizes = []
    async with resumable.attached(0) as read_on:
        while events := await read_on():
            sizes.append(len(events))
    limits = [min(FIRST * 2**place, MOST) for place in range(len(sizes))]
    assert all(size <= limit for size, limit in zip(sizes, limits, strict=True))
    assert all(size > limit - 5_000 for size, limit in zip(sizes[:-1], limits, strict=False))
    assert max(sizes) > MOST - 5_000


async def test_what_one_user_leaves_behind() -> None:
    """So many runs of one user can still be read; beyond it the oldest is forgotten, but first those nobody reads."""
    house = House()
    first = await house.over("first")
    second = await house.over("second")
    async with first.attached(0):
        for number in range(MAX_KEPT - 1):
            await house.over(str(number))
        assert house.resumables.find("alice", "second") is None
        assert second.size == 0
        assert house.resumables.find("alice", "0")
    other = await house.over("theirs", user_id="bob")
    assert house.resumables.find("bob", "theirs") is other


async def test_a_full_user_gives_up_their_own() -> None:
    """Where a user's journals are full, the oldest of theirs that nobody reads goes, and nobody else's."""
    house = House(per_run=40_000, per_user=50_000)
    hers = await house.over("hers", "alice", said="x" * 30_000)
    await house.over("his", "bob", said="x" * 30_000)
    await house.over("later", "bob", said="y" * 30_000)
    await house.over("last", "bob", said="z" * 30_000)
    assert house.resumables.find("alice", "hers") is hers
    assert house.resumables.find("bob", "his") is None
    assert house.resumables.find("bob", "last")


async def test_a_full_engine_takes_from_whoever_holds_most() -> None:
    """Where all journals are full, the biggest holder's oldest goes."""
    house = House(per_run=60_000, per_user=200_000, together=100_000)
    small = await house.over("small", "alice", said="x" * 10_000)
    await house.over("big", "bob", said="x" * 45_000)
    await house.over("bigger", "bob", said="x" * 45_000)
    await house.begin("new", "carol")
    assert house.resumables.find("alice", "small") is small
    assert house.resumables.find("bob", "big") is None
    assert house.resumables.find("bob", "bigger")


async def test_no_room_at_all() -> None:
    """Where nothing is left behind that could go, another is refused, and nothing of it has begun."""
    house = House(per_run=40_000, per_user=10_000)
    _, worker, run = await house.begin("1")
    worker.say("x" * 20_000)
    await until(lambda: run.count == 1)
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as raised:
        await house.begin("2")
    assert raised.value.details[0].reason == "NO_ROOM_FOR_RESUMABLE_RUNS"  # type: ignore[attr-defined]
    assert len(house.workers.given) == 1
    assert house.admission.find("alice", "2") is None


async def test_no_worker() -> None:
    """A run for which there is no worker leaves nothing."""
    house = House()
    house.workers.is_out = True
    with pytest.raises(WorkerError):
        await house.begin()
    assert house.resumables.find("alice", "1") is None
    assert house.admission.runs() == ()


async def test_a_journal_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that cannot be written down is closed, its place given back, and its callers hear that it is gone."""
    house = House()
    resumable, worker, _ = await house.begin()

    async def broken(_: bytes, __: int) -> None:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(resumable._journal, "append", broken)
    worker.say()
    await until(lambda: not house.admission.runs())
    assert worker.closed == 1
    assert house.resumables.find("alice", "1") is None
    with pytest.raises(Refusal, match="not there"):
        await all_of(resumable)
