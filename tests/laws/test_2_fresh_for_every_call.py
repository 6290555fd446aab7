"""Law 2: fresh for every call, and never used again."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.clients import caller, pid_of, terminal
from tests.support.services import Service
from tests.support.services import engine as start_engine

RUNS = 200


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with start_engine(agents="tests.agents.dirt", MAX_RUNS_PER_USER="50") as started:
        yield started


async def test_nothing_of_a_run_is_found_by_the_next(service: Service) -> None:
    """An agent dirties everything it can reach; 200 runs of two users, in turn and at once, find everything clean."""
    async with caller(service.address, "alice") as alice, caller(service.address, "bob") as bob:
        clean = json.loads(terminal(await alice.run("dirt")).agent_completed.output)
        for turn in range(RUNS // 2):
            user = (alice, bob)[turn % 2]
            assert json.loads(terminal(await user.run("dirt")).agent_completed.output) == clean, turn
        at_once = asyncio.Semaphore(40)

        async def run(turn: int) -> Any:
            async with at_once:
                return json.loads(terminal(await (alice, bob)[turn % 2].run("dirt")).agent_completed.output)

        for found in await asyncio.gather(*(run(turn) for turn in range(RUNS // 2))):
            assert found == clean


async def test_no_process_serves_twice(service: Service) -> None:
    """Each run has a process that no other run has."""
    async with caller(service.address) as alice:
        calls = [alice.call("pid") for _ in range(20)]
        pids = {await pid_of(call) for call in calls}
        for call in calls:
            call.cancel()
    assert len(pids) == 20


async def test_what_task_isolation_shares(service: Service) -> None:
    """In task isolation runs share the module's globals, as documented; contextvars and the object are their own."""
    async with caller(service.address, "alice") as alice, caller(service.address, "bob") as bob:
        first = json.loads(terminal(await alice.run("task_dirt")).agent_completed.output)
        second = json.loads(terminal(await bob.run("task_dirt")).agent_completed.output)
    assert second["shared"] == [*first["shared"], "alice"]
    assert (second["own"], second["object"]) == ("clean", "clean")
