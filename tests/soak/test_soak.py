"""Mixed users for a long time: every stream is right, and nothing grows.

A minute of it is part of `make siege`; `make soak` takes half an hour, or as many seconds as SOAK_SECONDS says, and
writes down and draws what it saw.
"""

import asyncio
import json
import os
import random
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.pictures import over_time
from tests.support.clients import JSON, frames, opening, socket
from tests.support.lasting import Lasting
from tests.support.proxy import FAULTS, proxy
from tests.support.services import ROOT, both, looks_inside, zygote_of
from tests.support.times import UNIT

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
USERS = 16
"""Users at once: about what two cores hold, with the users themselves."""
WARM = min(300.0, SECONDS / 3)
"""Seconds after which nothing may grow any more."""
GROWTH = 1.05
RESULTS = ROOT / "benchmarks" / "soak.json"
PICTURE = ROOT / "docs" / "pictures" / "soak.svg"

MEMORY, DESCRIPTORS, PROCESSES = "memory, MB", "descriptors", "processes"

Seen = Counter[str]
Samples = dict[str, dict[str, list[float]]]
"""What was measured, of whom, over time."""


async def normal(address: str, user: str, run_id: str) -> str:
    """Runs an agent to its end."""
    events, code = await _run(address, user, run_id, "counter", times=random.randint(0, 500))
    return _ended(events, code, "agentCompleted")


async def cancelling(address: str, user: str, run_id: str) -> str:
    """Cancels a run at some time."""
    async with socket(address) as connection:
        await connection.send(
            opening(JSON, "counter", user=user, runId=run_id, parameters={"times": 10_000, "pause": 0.01})
        )
        events = await _some(connection, random.randint(1, 30))
        await connection.send('{"cancel": {}}')
        for frame in await frames(connection):
            events += json.loads(frame).get("events", [])
        _check(events, run_id)
        return _ended(events, connection.close_code, "agentCancelled")


async def vanishing(address: str, user: str, run_id: str) -> str:
    """Leaves without a word."""
    async with socket(address) as connection:
        await connection.send(opening(JSON, "counter", user=user, runId=run_id, parameters={"times": 1_000_000}))
        _check(await _some(connection, random.randint(1, 3000)), run_id)
        connection.transport.abort()
    return "vanished"


async def stalled(address: str, user: str, run_id: str) -> str:
    """Stops reading for a while, and then reads all of it."""
    async with socket(address) as connection:
        await connection.send(opening(JSON, "counter", user=user, runId=run_id, parameters={"times": 20_000}))
        events = await _some(connection, 10)
        connection.transport.pause_reading()
        await asyncio.sleep(random.uniform(0.5, 3))  # this is what such a user does
        connection.transport.resume_reading()
        for frame in await frames(connection):
            events += json.loads(frame).get("events", [])
        _check(events, run_id)
        return _ended(events, connection.close_code, "agentCompleted")


async def failing(address: str, user: str, run_id: str) -> str:
    """Asks an agent that fails."""
    events, code = await _run(address, user, run_id, "rogue", "fail")
    return _ended(events, code, "agentFailed")


async def crashing(address: str, user: str, run_id: str) -> str:
    """Asks an agent whose process dies."""
    events, code = await _run(address, user, run_id, "rogue", random.choice(("segfault", "os_exit")))
    return _ended(events, code, "agentFailed")


async def resuming(address: str, user: str, _: str) -> str:
    """Has a run that outlives its connections, which break again and again."""
    async with proxy(address) as network:
        network.fate = lambda link, _: random.choice(FAULTS) if link.down > random.randint(5_000, 200_000) else None
        client = Lasting(network.address, user, silence=1)
        texts = await client.run("counter", window=5, times=2000)
    assert client.seqs == list(range(1, 2003)), "events were lost, or came twice"
    assert texts == [f"{client.run_id} {number}" for number in range(2000)]
    return client.ending


KINDS: dict[Callable[[str, str, str], Awaitable[str]], int] = {
    normal: 40, cancelling: 10, vanishing: 15, stalled: 5, failing: 10, crashing: 10, resuming: 10,
}  # fmt: skip


@looks_inside
@pytest.mark.force
@pytest.mark.timeout(SECONDS + 120)
async def test_mixed_users() -> None:
    """No stream is wrong, and no service has more memory, descriptors or processes than before, once it is warm."""
    asyncio.get_running_loop().set_debug(False)
    few = {"MAX_RUNS": "200", "MAX_SPARES": "4"}  # as many wait in the end as did at first
    with both(AGENTS="tests.agents.probes,tests.agents.rogues", **few) as (back, front):
        seen = Seen()
        await normal(front.address, "first", str(uuid.uuid4()))
        looked = {"engine": psutil.Process(back.pid), "gateway": psutil.Process(front.pid)}
        idle = await _quiet(looked, None)
        until = time.monotonic() + SECONDS
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_watch(looked | {"zygote": psutil.Process(zygote_of(back))}, until))
            for number in range(USERS):
                group.create_task(_user(front.address, f"user-{number}", until, seen))
        samples = watching.result()
        assert await _quiet(looked, idle) == idle, "descriptors or processes were left behind"
        assert back.process.poll() is front.process.poll() is None
    print(f"{sum(seen.values())} runs of {USERS} users at once in {SECONDS:.0f} s: {dict(seen.most_common())}")
    grown = {name: _growth(values) for name, values in samples[MEMORY].items()}
    print("growth of memory after", f"{WARM:.0f} s:", {name: f"{factor - 1:+.1%}" for name, factor in grown.items()})
    if "SOAK_SECONDS" in os.environ:
        _write_down(samples, grown, seen)
    assert {how.partition(":")[0] for how in seen} == {kind.__name__ for kind in KINDS}
    for name, factor in grown.items():
        assert factor <= GROWTH, f"{name} grew by {factor - 1:.1%}"


async def _user(address: str, user: str, until: float, seen: Seen) -> None:
    """Do one thing after the other."""
    while time.monotonic() < until:
        [kind] = random.choices(list(KINDS), weights=list(KINDS.values()))
        seen[f"{kind.__name__}: {await kind(address, user, str(uuid.uuid4()))}"] += 1


async def _run(address: str, user: str, run_id: str, agent: str, input: str = "", **parameters: Any) -> Any:
    async with socket(address) as connection:
        await connection.send(opening(JSON, agent, input, user=user, runId=run_id, parameters=parameters))
        events = [event for frame in await frames(connection) for event in json.loads(frame).get("events", [])]
        _check(events, run_id)
        return events, connection.close_code


async def _some(connection: Any, count: int) -> list[Any]:
    events: list[Any] = []
    while len(events) < count:
        events += json.loads(await connection.recv()).get("events", [])
    return events


def _check(events: list[Any], run_id: str) -> None:
    """Check the numbers of a run's events, and whose they are."""
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    said = [
        event["agentMessage"]["delta"] for event in events if "agentMessage" in event and event["agent"] == "counter"
    ]
    assert said == [f"{run_id} {number}" for number in range(len(said))], "an event of another's"


def _ended(events: list[Any], code: int | None, ending: str) -> str:
    assert ending in events[-1], events[-1]
    assert code == 1000
    return ending


async def _watch(looked: dict[str, psutil.Process], until: float) -> Samples:
    """Look at the processes once a second."""
    samples: Samples = {what: {name: [] for name in looked} for what in (MEMORY, DESCRIPTORS)}
    samples[PROCESSES] = {"engine": []}
    while time.monotonic() < until:
        for name, process in looked.items():
            memory = process.memory_full_info()
            # What the zygote has for itself alone is a matter of how many children share the rest just now.
            samples[MEMORY][name].append((memory.rss if name == "zygote" else memory.uss) / 2**20)
            samples[DESCRIPTORS][name].append(process.num_fds())
        samples[PROCESSES]["engine"].append(len(looked["engine"].children(recursive=True)))
        await asyncio.sleep(1)
    return samples


async def _quiet(looked: dict[str, psutil.Process], idle: dict[str, int] | None) -> dict[str, int]:
    """Wait until no run is left, or until all is as it was, and return the services' descriptors and processes."""
    until = time.monotonic() + 30 * UNIT
    before = None
    while True:
        found = {name: process.num_fds() for name, process in looked.items()}
        found["processes"] = len(looked["engine"].children(recursive=True))
        if found == (idle or before) or time.monotonic() > until:
            return found
        before = found
        await asyncio.sleep(0.5)


def _growth(values: list[float]) -> float:
    """Compare the end with what it was once it was warm. Medians: runs come and go."""
    span = max(len(values) // 6, 3)
    warm = values[int(len(values) * WARM / SECONDS) :][:span]
    return statistics.median(values[-span:]) / statistics.median(warm)


def _write_down(samples: Samples, grown: dict[str, float], seen: Seen) -> None:
    document = {"seconds": SECONDS, "users": USERS, "runs": dict(seen), "growth": grown, "samples": samples}
    RESULTS.write_text(json.dumps(document) + "\n")
    Path(PICTURE).write_text(
        over_time(f"{USERS} mixed users run {sum(seen.values()):,} agents, without a pause", SECONDS, samples)
    )
