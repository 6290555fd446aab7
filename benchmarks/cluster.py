"""What a place on a Ray cluster costs, beside a process of the engine's, in one run on one machine."""

import asyncio
import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from tests.support.clients import Caller, caller, terminal
from tests.support.cluster import ON_LOOPBACK, Cluster
from tests.support.services import engine as start_engine
from tests.support.services import until

RESULTS = Path(__file__).with_name("cluster.json")
AGENTS = "tests.agents.probes"
POOL = 12
"""Workers that Ray may start at once."""
RUNS = 10
"""In a turn: the first ones find a worker of Ray's that waits, the others don't."""
TURNS = 3
REST = 0.5
"""Seconds between two runs: an actor that ends, and Ray, which looks after it, have the processors for a while."""
SECONDS = 3.0
"""Of streams that all go on."""
STREAMS = 10


async def first_event(user: Caller) -> float:
    """Run an agent to its end, and return after how many milliseconds there was an event. Then let all come to rest."""
    started, first = time.perf_counter(), 0.0
    async for response in user.call("echo", "hi"):
        if response.events and not first:
            first = time.perf_counter() - started
    await asyncio.sleep(REST)
    return 1000 * first


@contextmanager
def nodes() -> Iterator[Cluster]:
    """Have a cluster of two nodes."""
    with Cluster() as cluster:
        cluster.add(num_cpus=POOL)
        yield cluster


def ready(cluster: Cluster) -> int:
    """Return how many workers of the cluster's wait for something to do."""
    return sum("ray::IDLE" in "".join(process.cmdline()) for process in cluster.processes())


async def firsts() -> dict[str, list[float]]:
    """Measure runs one after another: in processes, in workers that wait, in workers that have to be started."""
    found: dict[str, list[float]] = {"process": [], "warm": [], "cold": []}
    for _ in range(TURNS):
        # A cluster of its own: Ray has workers ready for its first driver alone.
        with nodes() as cluster, start_engine(agents=AGENTS) as at_home, cluster.engine(agents=AGENTS) as away:
            async with caller(at_home.address) as one, caller(away.address) as other:
                await first_event(one)
                await until(lambda: ready(cluster) > 0)
                for _ in range(RUNS):
                    found["process"].append(await first_event(one))
                    kind = "warm" if ready(cluster) else "cold"
                    found[kind].append(await first_event(other))
    return found


async def throughput(user: Caller, streams: int) -> float:
    """Return the events per second of so many streams at once, while all of them go on."""
    counts = dict.fromkeys(range(streams), 0)

    async def one(number: int) -> None:
        async for response in user.call("flood"):
            counts[number] += len(response.events)

    reading = [asyncio.create_task(one(number)) for number in range(streams)]
    await until(lambda: all(counts.values()))
    before, started = sum(counts.values()), time.perf_counter()
    await asyncio.sleep(SECONDS)
    speed = (sum(counts.values()) - before) / (time.perf_counter() - started)
    assert not any(task.done() for task in reading), "all go on"
    for task in reading:
        task.cancel()
    await asyncio.wait(reading)
    return speed


async def speeds() -> dict[str, dict[str, float]]:
    """Measure streams, turn by turn; the medians, in events per second."""
    found: dict[str, dict[str, list[float]]] = {}
    with (
        nodes() as cluster,
        start_engine(agents=AGENTS, MAX_RUNS_PER_USER="32") as at_home,
        cluster.engine(agents=AGENTS) as away,
    ):
        async with caller(at_home.address) as one, caller(away.address) as other:
            terminal(await one.run("echo", "hi"))
            for _ in range(TURNS):
                await asyncio.sleep(1)
                for streams in (1, STREAMS):
                    for where, user in (("process", one), ("ray", other)):
                        speed = await throughput(user, streams)
                        found.setdefault(f"{streams}", {}).setdefault(where, []).append(speed)
    return {streams: {where: statistics.median(each) for where, each in by.items()} for streams, by in found.items()}


def told(first: dict[str, list[float]], speed: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Print what was found, and return it."""
    medians = {name: statistics.median(each) for name, each in first.items()}
    print(
        f"\nRay {ray.__version__}, {os.cpu_count()} processors, two nodes on one machine; "
        f"{len(first['warm'])} runs, {len(first['cold'])} cold\n"
    )
    print(f"first event: a process {medians['process']:.1f} ms", end="")
    for name in ("warm", "cold"):
        worst = max(first[name])
        print(
            f" · {name} {medians[name]:.0f} ms ({medians[name] / medians['process']:.0f} ×), at worst {worst:.0f}",
            end="",
        )
    print()
    for streams, by in speed.items():
        ratio = by["ray"] / by["process"]
        print(f"{streams} streams: a process {by['process']:,.0f} events/s · ray {by['ray']:,.0f} ({ratio:.2f} ×)")
    return {"first_event_ms": medians, "events_per_second": speed}


async def main() -> None:
    """Measure, tell, and keep."""
    os.environ.update(ON_LOOPBACK | {"RAY_worker_maximum_startup_concurrency": str(POOL)})
    results = told(await firsts(), await speeds())
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
