"""Connections break all the time, and every resumable run tells every event of it, once, in order."""

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.support.lasting import Lasting
from tests.support.proxy import FAULTS, Fault, Link, proxy
from tests.support.services import both, engine, gateway, until

pytestmark = pytest.mark.measures

RUNS = int(os.environ.get("CUT_RUNS", "20"))
EVENTS = 2000
"""Of each run, its start and its end among them."""


@pytest.mark.timeout(600)
async def test_runs_whose_connections_are_cut() -> None:
    """Each connection breaks after 50 to 500 events, in one of three ways, in the middle of a frame."""
    asyncio.get_running_loop().set_debug(False)  # it would take longer than what it looks at
    cuts = Counter[str]()
    left: dict[Link, int] = {}

    def fate(link: Link, data: bytes) -> Fault | None:
        left[link] = left.get(link, random.randint(50, 500)) - data.count(b'"seq"')
        if left[link] > 0:
            return None
        del left[link]
        cuts[fault := random.choice(FAULTS)] += 1
        return fault

    with both(MAX_RUNS=str(RUNS)) as (_, front):
        async with proxy(front.address) as network:
            network.fate = fate
            clients = [Lasting(network.address, f"user-{number}", silence=0.3 + RUNS / 75) for number in range(RUNS)]
            said = await asyncio.gather(*(client.run("counter", times=EVENTS - 2) for client in clients))
    print(f"{RUNS} runs of {EVENTS} events, cut {sum(cuts.values())} times: {dict(cuts)}")
    assert sum(cuts.values()) > 3 * RUNS
    for client, texts in zip(clients, said, strict=True):
        _check(client, texts, EVENTS)


async def test_a_fast_run_is_cut() -> None:
    """What was under way to a browser when its connection broke is less than what is kept, however fast the run is."""
    asyncio.get_running_loop().set_debug(False)
    with both() as (_, front):
        async with proxy(front.address) as network:
            network.fate = lambda link, _: random.choice(FAULTS) if link.down > 3_000_000 else None
            client = Lasting(network.address, "alice", silence=0.7)
            texts = await client.run("counter", times=80_000)
    print(f"a run of 80,000 events, as fast as they go, cut {client.losses} times")
    assert client.losses > 2
    _check(client, texts, 80_002)


async def test_the_gateway_is_killed(tmp_path: Path) -> None:
    """Killed with -9 and started again under a hundred runs: all of them go on, nothing lost, nothing twice."""
    asyncio.get_running_loop().set_debug(False)
    with engine(MAX_RUNS="100") as back, gateway(back.address) as front:
        address = front.address
        clients = [Lasting(address, f"user-{number}") for number in range(100)]
        is_killed = tmp_path / "killed"  # or the first would be done before the last has begun
        running = [
            asyncio.create_task(client.run("counter", times=120, pause=0.02, halfway=str(is_killed)))
            for client in clients
        ]
        await until(lambda: all(len(client.seqs) > 20 for client in clients))
        front.kill()
        is_killed.touch()
        assert not any(client.ending for client in clients)
        with gateway(back.address, LISTEN=address):
            said = await asyncio.gather(*running)
    for client, texts in zip(clients, said, strict=True):
        assert client.losses > 0
        _check(client, texts, 122)


def _check(client: Lasting, texts: list[str], events: int) -> None:
    assert client.seqs == list(range(1, events + 1))
    assert client.ending == "agentCompleted"
    assert texts == [f"{client.run_id} {number}" for number in range(events - 2)]
