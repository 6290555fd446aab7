"""What ends without a word on a cluster: a worker, a node, the driver. Their runs are told to be lost."""

import datetime
import itertools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import grpc
import psutil
import pytest
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import CancelRequest

from tests.support.clients import Caller, caller, events_of, kinds, pid_of, said, terminal
from tests.support.cluster import Cluster
from tests.support.services import Record, Service, is_gone, until
from tests.support.times import PATIENCE, UNIT

pytestmark = pytest.mark.ray

RUN_ID = "123e4567-e89b-42d3-a456-426614174000"
AT_LONGEST = 15 * UNIT
"""Seconds until a run that was lost is told so."""


@pytest.fixture(scope="module")
def service(cluster: Cluster) -> Iterator[Service]:
    with cluster.engine(agents="tests.agents.probes,tests.agents.dirt,tests.agents.rogues") as started:
        yield started


def worker_of(pid: int) -> psutil.Process:
    """Return the actor's process that has a run's: its zygote's parent."""
    zygote = psutil.Process(pid).parent()
    assert zygote
    worker = zygote.parent()
    assert worker
    return worker


def driver_of(service: Service) -> psutil.Process:
    for child in psutil.Process(service.pid).children():
        with suppress(psutil.ZombieProcess):  # the one before
            if "engine_service.cluster" in child.cmdline():
                return child
    raise AssertionError("there is none")


def connections(service: Service) -> int:
    """Return how often it was connected to the cluster."""
    return sum(record.get("event") == "connected to the cluster" for record in service.records)


async def rest(call: object) -> tuple[pb.AgentFailed, float]:
    """Return how a run ended, and after how long."""
    started = time.monotonic()
    events = events_of([response.SerializeToString() async for response in call])  # type: ignore[attr-defined]
    return events[-1].agent_failed, time.monotonic() - started


async def well(alice: Caller) -> None:
    assert terminal(await alice.run("echo", "again")).agent_completed.output == "again"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_worker(service: Service, number: signal.Signals) -> None:
    """When its worker is killed in mid-run, a run ends with CRASHED, nothing of it is left, and others go on."""
    async with caller(service.address) as alice:
        other = alice.call("ticker", parameters={"ticks": 40})
        assert await said(other) == "0"
        call = alice.call("pid", "stubborn")
        pid = await pid_of(call)
        os.kill(worker_of(pid).pid, number)
        failed, took = await rest(call)
        assert (failed.reason, failed.retryable) == (pb.FAILURE_REASON_CRASHED, True)
        assert "its place on the cluster is lost" in failed.message
        assert took < AT_LONGEST
        await until(lambda: is_gone(pid))
        events = [event async for response in other for event in response.events]
        assert events[-1].agent_completed.output == "done"
        await well(alice)


async def test_a_worker_that_hangs(service: Service) -> None:
    """A run whose worker does not answer ends when it is told to; its neighbours, and the driver, are not harmed."""
    async with caller(service.address) as alice:
        driver = driver_of(service)
        other = alice.call("ticker", parameters={"ticks": 150})
        assert await said(other) == "0"
        call = alice.call("pid", run_id=RUN_ID)
        pid = await pid_of(call)
        worker = worker_of(pid)
        worker.suspend()
        await alice.stub.Cancel(CancelRequest(run_id=RUN_ID), metadata=alice.metadata)
        [end] = [event async for response in call for event in response.events]
        assert end.agent_cancelled.reason == "Cancelled by its user."
        await until(lambda: is_gone(pid) and not worker.is_running())
        assert [event async for response in other for event in response.events][-1].agent_completed.output == "done"
        assert driver_of(service) == driver


async def test_a_zygote(service: Service) -> None:
    """So it is when the process is killed that the run's was forked from."""
    async with caller(service.address) as alice:
        call = alice.call("pid", "stubborn")
        pid = await pid_of(call)
        zygote = psutil.Process(pid).parent()
        assert zygote
        zygote.kill()
        failed, _ = await rest(call)
        assert failed.reason == pb.FAILURE_REASON_CRASHED
        assert is_gone(pid)
        await well(alice)


async def test_a_node(cluster: Cluster) -> None:
    """When a node's raylet is killed in mid-run, its runs end with CRASHED, and others go on."""
    node = cluster.add(num_cpus=2, resources={"far": 1})
    with cluster.engine(agents="tests.agents.placed,tests.agents.probes") as service:
        async with caller(service.address) as alice:
            near = alice.call("ticker", parameters={"ticks": 60})
            assert await said(near) == "0"
            call = alice.call("far")
            pid = int(await said(call))
            service.wait_for(lambda record: record["event"] == "placed on the cluster" and node.id in record["text"])
            worker = worker_of(pid)
            os.kill(node.raylet, signal.SIGKILL)
            failed, took = await rest(call)
            print(f"told after {took:.1f} s")
            assert (failed.reason, failed.retryable) == (pb.FAILURE_REASON_CRASHED, True)
            assert took < AT_LONGEST
            await until(lambda: is_gone(pid) and not worker.is_running())
            assert [event async for response in near for event in response.events][-1].agent_completed.output == "done"
            await well(alice)


async def test_the_driver(service: Service) -> None:
    """When the driver dies, its runs end with CRASHED, nothing of them is left, and it has a successor."""
    async with caller(service.address) as alice:
        call = alice.call("pid", "stubborn")
        pid = await pid_of(call)
        before = connections(service)
        driver_of(service).kill()
        failed, _ = await rest(call)
        assert failed.reason == pb.FAILURE_REASON_CRASHED
        assert "the driver on the cluster died" in failed.message
        await until(lambda: is_gone(pid))
        await until(lambda: connections(service) > before)
        await well(alice)


async def test_a_driver_that_hangs(service: Service) -> None:
    """A run whose driver hangs is not waited for: it ends when it is told to, and the driver is killed."""
    async with caller(service.address) as alice:
        await well(alice)
        driver, before = driver_of(service), connections(service)
        call = alice.call("pid")
        await pid_of(call)
        driver.suspend()
        call.cancel()
        await until(lambda: is_gone(driver.pid))
        service.wait_for(lambda record: record["event"] == "the driver does not answer: it is killed")
        await until(lambda: connections(service) > before)
        await well(alice)


async def test_the_whole_cluster() -> None:
    """When its cluster is gone, such runs are refused, others go on, and it is asked for again, less and less often."""
    with Cluster() as cluster:
        engine = cluster.engine(agents="tests.agents.placed", ISOLATION="process")

        def tried() -> list[Record]:
            return [record for record in engine.records if record.get("event") == "no driver can be had"]

        async with caller(engine.address) as alice:
            call = alice.call("lingering")
            await said(call)
            cluster.end()
            failed, _ = await rest(call)
            assert failed.reason == pb.FAILURE_REASON_CRASHED
            await until(lambda: len(tried()) > 2, 3 * PATIENCE)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await alice.run("lingering")
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            gaps = [_seconds(later) - _seconds(earlier) for earlier, later in itertools.pairwise(tried())]
            assert gaps == sorted(gaps), "one who tries, with pauses that grow"
            assert kinds(await alice.run("homely"))[-1] == "agent_completed"
        assert engine.stop() == 0


def _seconds(record: Record) -> float:
    return datetime.datetime.fromisoformat(str(record["timestamp"])).timestamp()
