"""Law 1 on a cluster: a run lives as long as its call, and nothing of it lives longer."""

import statistics
from collections.abc import Iterator

import pytest

from tests.laws.test_1_the_call_is_the_run import (
    left,
    test_a_place_is_given_back_once,
    test_a_vanished_caller,
    test_an_agent_that_never_waits_is_told_too,
    test_resisting_is_of_no_use,
    test_what_it_started_ends_with_it,
)
from tests.support.clients import caller, pid_of
from tests.support.cluster import Cluster
from tests.support.services import Service, is_gone, until

__all__ = [
    "test_a_place_is_given_back_once",
    "test_a_vanished_caller",
    "test_an_agent_that_never_waits_is_told_too",
    "test_resisting_is_of_no_use",
    "test_what_it_started_ends_with_it",
]

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def service(cluster: Cluster) -> Iterator[Service]:
    agents = "tests.agents.probes,tests.agents.rogues,tests.agents.dirt"
    with cluster.engine(agents=agents, MAX_RUNS="20", MAX_RUNS_PER_USER="4") as started:
        yield started


async def test_leaving_ends_the_process(service: Service) -> None:
    """When the caller leaves, the agent's process is gone within 100 ms (median of 10), as at home."""
    took = await left(service, "pid", 10)
    print(f"gone after {statistics.median(took) * 1000:.1f} ms (median), {max(took) * 1000:.1f} ms (worst)")
    assert statistics.median(took) < 0.1


async def test_leaving_before_there_is_a_place(cluster: Cluster) -> None:
    """Who leaves while the run waits for its place leaves nothing that waits."""
    with cluster.engine(agents="tests.agents.placed", HEARTBEAT="0.2") as service:
        service.wait_for(lambda record: record["event"].startswith("no node of the cluster has"))
        async with caller(service.address) as alice:
            call = alice.call("demanding")
            async for response in call:
                assert not response.events
                break
            call.cancel()
            left_it = service.wait_for(lambda record: record["event"] == "run left by its caller")
            assert left_it["events"] == 0


async def test_an_engine_that_is_killed(cluster: Cluster) -> None:
    """With its engine end a cluster's runs, though nobody told them, and the driver."""
    with cluster.engine(agents="tests.agents.probes,tests.agents.dirt") as service:
        async with caller(service.address) as alice:
            pids = [await pid_of(alice.call("pid", how)) for how in ("", "stubborn")]
            assert not any(map(is_gone, pids))
            service.kill()
            await until(lambda: all(map(is_gone, pids)))
