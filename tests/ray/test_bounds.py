"""Law 5 on a cluster: a caller who reads nothing stops an agent that is on another machine."""

import asyncio
import contextlib
import time

import psutil
import pytest

from tests.support.clients import caller, pid_of, terminal
from tests.support.cluster import Cluster
from tests.support.services import Service
from tests.support.times import UNIT

pytestmark = pytest.mark.ray

WANTED = 20_000_000
GROWTH = 8e6


def memory(cluster: Cluster, engine: Service) -> dict[int, int]:
    """Return what each process has of its own: the cluster's, the engine's, and those that it started."""
    ours = psutil.Process(engine.pid)
    sizes = {}
    for process in (*cluster.processes(), ours, *ours.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            sizes[process.pid] = process.memory_full_info().uss
    return sizes


async def test_nobody_reads(cluster: Cluster) -> None:
    """Of 20 million events, wanted by a caller who reads none, no process of the cluster grows, nor of the engine."""
    with cluster.engine(agents="tests.agents.probes") as service:
        async with caller(service.address, "stalled") as stalled, caller(service.address) as alice:
            terminal(await alice.run("flood", parameters={"events": 20_000}))  # so that what is there for good is there
            call = stalled.call("flood", parameters={"events": WANTED})
            pid = await pid_of(call)
            await asyncio.sleep(UNIT)  # what lies between has been filled by then
            before = memory(cluster, service)
            assert pid in before
            until = time.monotonic() + 5 * UNIT
            while time.monotonic() < until:
                assert terminal(await alice.run("echo", "hi")).agent_completed.output == "hi"
            after = memory(cluster, service)
            used = psutil.Process(pid).cpu_times().user
            grown = {each: after[each] - size for each, size in before.items() if each in after}
            call.cancel()
    print(f"grown by {max(grown.values()) / 1e6:.1f} MB at most, {sum(grown.values()) / 1e6:.1f} MB in all")
    assert max(grown.values()) < GROWTH
    assert used < UNIT, "the agent waits"


async def test_all_of_it_arrives(cluster: Cluster) -> None:
    """What was held up arrives in the end: every event, in its order."""
    with cluster.engine(agents="tests.agents.probes") as service:
        async with caller(service.address) as alice:
            call = alice.call("flood", parameters={"events": 200_000})
            seqs: list[int] = []
            async for response in call:
                if not seqs:
                    await asyncio.sleep(UNIT)  # a caller who does something else
                seqs += [event.seq for event in response.events]
    assert seqs == list(range(1, 200_000 + 4))
