"""Law 2 on a cluster: each run has a process, and a place, that no other run has had."""

import asyncio
import re
from collections.abc import Iterator

import pytest

from tests.support.clients import Caller, caller, pid_of, terminal
from tests.support.cluster import Cluster
from tests.support.services import Service

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def service(cluster: Cluster) -> Iterator[Service]:
    with cluster.engine(agents="tests.agents.dirt,tests.agents.probes") as started:
        yield started


async def found(user: Caller) -> str:
    """Return what a run finds, without where in memory it is."""
    return re.sub(r"0x[0-9a-f]+", "", terminal(await user.run("dirt")).agent_completed.output)


async def test_no_process_serves_twice(service: Service) -> None:
    """Each run has a process that no other run has."""
    async with caller(service.address) as alice:
        calls = [alice.call("pid") for _ in range(8)]
        pids = {await pid_of(call) for call in calls}
        for call in calls:
            call.cancel()
    assert len(pids) == 8


async def test_nothing_of_a_run_is_found_by_the_next(service: Service) -> None:
    """An agent dirties everything it can reach; ten runs of two users, in turn and at once, find everything clean."""
    async with caller(service.address, "alice") as alice, caller(service.address, "bob") as bob:
        clean = await found(alice)
        for user in (bob, alice):
            assert await found(user) == clean
        assert set(await asyncio.gather(*(found(user) for user in (alice, bob) * 4))) == {clean}


async def test_at_once(service: Service) -> None:
    """Twenty runs at once are all served, and each user has what is theirs: more wait for a place than there are."""
    words = [str(number) for number in range(20)]
    async with caller(service.address) as alice:
        runs = await asyncio.gather(*(alice.run("echo", word, parameters={"times": 5}) for word in words))
    for word, events in zip(words, runs, strict=True):
        assert terminal(events).agent_completed.output == word
        assert {event.agent_message.delta for event in events[1:-1]} == {word}
        assert len(events) == 7
