"""An engine does not believe its driver on a cluster: whatever that says or does, runs end, and the loop goes on."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from runwire.v1 import events_pb2 as pb

from engine_service.cluster.messages import Connect
from engine_service.runs.run import Run
from engine_service.wire import Description, Terms, Work, events_in
from engine_service.workers import WorkerError
from engine_service.workers.ray import RayWorkers
from tests.support.services import until
from tests.support.times import HELD, UNIT

AGENT = Description("far", "", "ray", "module", is_public=True, is_forked=True)
TERMS = Terms(("module",), 1024 * 1024, 2**29, 600, 600)


@asynccontextmanager
async def workers(how: str) -> AsyncIterator[RayWorkers]:
    """Have an engine's side of a cluster whose driver is wild in this way."""
    found = RayWorkers(Connect(how, ""), TERMS, {"far": AGENT}, 10)
    found._helper._module = "tests.support.wild_driver"
    await found.begin()
    try:
        yield found
    finally:
        await found.shut_down()


async def ended(found: RayWorkers) -> pb.AgentFailed:
    """Begin a run, and return how it ended."""
    run = Run(Work("1", "alice", "far"), found, max_event_bytes=1024 * 1024)
    await run.start(60)
    said = b""
    async with asyncio.timeout(10 * UNIT):
        while data := await run.next():
            said += data
        await run.close()
    *_, last = events_in(said)
    return last.agent_failed


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("surrogate", "the driver on the cluster died"),
        ("level", "the driver on the cluster died"),
        ("nonsense", "the driver on the cluster died"),
        ("unexpected", "the driver on the cluster died"),
        ("too long", "the driver on the cluster died"),
        ("lets go", "the driver on the cluster died"),
        ("dies", "the driver on the cluster died"),
        ("number", "unexpectedly: y."),
        ("long", "unexpectedly: xxxx"),
        ("flood", "exit status 3"),
    ],
)
async def test_whatever_it_says(how: str, says: str) -> None:
    """A run ends with one event, which says what is known; the engine's loop is not held, and its log is bounded."""
    with structlog.testing.capture_logs() as logged:
        async with workers(how) as found:
            failed = await ended(found)
            assert (failed.reason, says in failed.message) == (pb.FAILURE_REASON_CRASHED, True), failed
            assert len(failed.message) < 400
            started = time.monotonic()
            await asyncio.sleep(0)
            assert time.monotonic() - started < HELD
            assert not found._workers
    assert sum(len(str(record)) for record in logged) < 2_000_000


@pytest.mark.parametrize("how", ["dies in boot", "talks in boot"])
async def test_a_successor_that_does_not_come(how: str, tmp_path: Path) -> None:
    """While there is no driver, runs are refused; one of its successors is tried at a time."""
    with structlog.testing.capture_logs() as logged:
        async with workers(f"{how}|{tmp_path}/seen") as found:
            await ended(found)
            await until(lambda: sum(record["event"] == "no driver can be had" for record in logged) > 1)
            assert not found._helper.is_there
            with pytest.raises(WorkerError):
                await found.start(Work("2", "alice", "far"))
            assert len(found._helper._tasks) == 1
    assert sum(record["event"] == "the driver died" for record in logged) == 1
