"""A journal that is in a store, as its own engine has it: what it has written, and not heard of yet."""

import asyncio

import pytest
from runwire.v1 import events_pb2 as pb

from engine_service.stores.memory import MemoryJournals
from engine_service.stores.store import GoneError
from engine_service.stores.valkey.journal import Scribe, SharedJournal, Tenure
from engine_service.stores.valkey.keys import Name
from engine_service.stores.valkey.link import link
from engine_service.wire import event_frame, events_in


def event(seq: int, size: int = 1) -> bytes:
    return event_frame(pb.Event(seq=seq, agent="root", agent_message=pb.AgentMessage(delta="x" * size)))


def opened() -> SharedJournal:
    """A journal whose engine writes to the store when the test says so."""
    there = link("valkey://127.0.0.1:1/0")  # nobody goes there
    tenure = Tenure(there.keys.run("alice", "run"), 1, ((1, 0),))
    room = MemoryJournals(1000, 10_000, 10_000).room("alice")
    return SharedJournal(room, tenure, None, Scribe(there, Name()), lambda: None)


def write(journal: SharedJournal) -> None:
    """Hear that the store has all of it."""
    for step in tuple(journal.steps()):
        journal.stored(step)


async def test_who_is_ahead_is_not_sent_away() -> None:
    """A reader who was told something by another engine, before we heard that it is written, reads on behind it."""
    journal = opened()
    journal.put(event(1) + event(2), 2)
    journal.check(2)
    with pytest.raises(GoneError):
        journal.check(3)
    reading = asyncio.create_task(journal.read(2, 1000))
    await asyncio.sleep(0)
    journal.put(event(3), 3)
    await asyncio.sleep(0)
    assert not reading.done()
    write(journal)
    events, last = await reading
    assert ([each.seq for each in events_in(events)], last) == ([3], 3)


async def test_what_is_not_heard_of_is_kept() -> None:
    """What was read elsewhere may have to be written once more: it is not pushed out before we know."""
    journal = opened()
    journal.put(event(1, 400) + event(2, 400), 2)
    journal.acknowledge(2)
    journal.push_out(10_000)
    write(journal)
    events, last = await journal.read(0, 1000)
    assert ([each.seq for each in events_in(events)], last) == ([1, 2], 2)
