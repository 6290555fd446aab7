"""Who may start how many."""

import asyncio

import pytest

from engine_service.runs.admission import UNREAD, Admission
from engine_service.runs.refusal import Code, Refusal
from engine_service.runs.run import Run
from tests.support.workers import HandWorkers, work


def admission(runs: int = 3, per_user: int = 2) -> Admission:
    return Admission(runs, per_user)


def run(user_id: str = "alice", run_id: str = "1") -> Run:
    return Run(work(user_id, run_id), HandWorkers(), max_event_bytes=1024)


def refused(admission: Admission, user_id: str, run_id: str = "new") -> tuple[Code, str]:
    """Return why a user cannot have another run, for people and for programs."""
    with pytest.raises(Refusal) as raised:
        admission.check(user_id, run_id)
    reason = raised.value.details[0].reason if raised.value.details else ""  # type: ignore[attr-defined]
    return raised.value.code, reason


async def test_each_place_is_given_back_once() -> None:
    """A user has so many runs at once, and as many again when those are over."""
    book = admission()
    for _ in range(3):
        with book.admit(run(run_id="1")), book.admit(run(run_id="2")):
            assert refused(book, "alice") == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_RUNS_OF_USER")
            book.check("bob", "1")
        book.check("alice", "1")
    assert book.runs() == ()


async def test_all_together() -> None:
    """The engine has so many runs at once, whosever they are."""
    book = admission(runs=2)
    with book.admit(run("alice")), book.admit(run("bob")):
        assert refused(book, "carol") == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_RUNS")
    book.check("carol", "1")


async def test_a_run_that_is_there_is_said_first() -> None:
    """Whoever lost a call hears that its run is there, also when there is no room, or the engine drains."""
    book = admission(runs=1, per_user=1)
    with book.admit(run("alice", "mine")):
        book.close()
        assert refused(book, "alice", "mine") == (Code.ALREADY_EXISTS, "")
        assert refused(book, "alice") == (Code.UNAVAILABLE, "DRAINING")
        assert refused(book, "bob", "mine") == (Code.UNAVAILABLE, "DRAINING")


async def test_found_by_its_user_alone() -> None:
    """What belongs to another user does not exist."""
    book = admission()
    mine = run("alice", "1")
    with book.admit(mine):
        assert book.find("alice", "1") is mine
        assert book.find("bob", "1") is None
        assert book.runs() == (mine,)
    assert book.find("alice", "1") is None


async def test_unread_calls_take_places() -> None:
    """A call whose caller reads nothing takes a place of its user's, and of nobody else's."""
    book = admission(runs=2, per_user=2)
    with book.unread.one("alice"), book.unread.one("alice"):
        assert refused(book, "alice") == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_RUNS_OF_USER")
        book.check("bob", "1")
        with book.admit(run("bob", "1")):
            book.check("bob", "2")
    book.check("alice", "1")
    assert len(book.unread) == 0  # who has none any more is forgotten


async def test_calls_that_end_unheard() -> None:
    """So many calls that hear no end, and none more can be resumed."""
    book = admission(per_user=1)
    for tally in (book.unread, book.sent_away):
        held = [tally.one("alice") for _ in range(UNREAD)]
        for each in held:
            book.check_resume("alice")
            each.__enter__()
        with pytest.raises(Refusal, match="do not read"):
            book.check_resume("alice")
        book.check_resume("bob")
        held[0].__exit__(None, None, None)
        book.check_resume("alice")
        for each in held[1:]:
            each.__exit__(None, None, None)


async def test_waiting_until_there_are_none() -> None:
    """Whoever waits for the end of all runs goes on when the last one is over, and at once where there are none."""
    book = admission()
    await book.wait_empty()
    with book.admit(run("alice", "1")):
        with book.admit(run("alice", "2")):
            waiting = asyncio.create_task(book.wait_empty())
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
