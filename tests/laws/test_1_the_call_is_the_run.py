"""Law 1: the call is the run. A run lives as long as its call, and nothing of it lives longer."""

import asyncio
import os
import signal
import statistics
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.json_format import MessageToDict
from runwire.v1 import engine_pb2 as pb
from runwire.v1.events_pb2 import FAILURE_REASON_CRASHED

from tests.support.clients import Caller, caller, kinds, pid_of, said, terminal
from tests.support.services import Service, is_gone, looks_inside, until, zygote_of, zygotes_of
from tests.support.services import engine as start_engine
from tests.support.times import UNIT


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    agents = "tests.agents.probes,tests.agents.rogues,tests.agents.dirt,tests.agents.tasks"
    with start_engine(agents=agents, MAX_RUNS="20", MAX_RUNS_PER_USER="4", MAX_SPARES="4") as started:
        yield started


async def left(service: Service, agent: str, times: int) -> list[float]:
    """Leave an agent so many times, and return how long its process was there after that."""
    took = []
    for number in range(times):
        # A user of its own each: the engine gives a place back only when it has seen the process end, as we do.
        async with caller(service.address, f"user-{number}") as alice:
            call = alice.call(agent)
            pid = await pid_of(call)
            call.cancel()
            took.append(await until(lambda pid=pid: is_gone(pid)))  # type: ignore[misc]
    return took


@pytest.mark.measures
async def test_leaving_ends_the_process(service: Service) -> None:
    """When the caller leaves, the agent's process is gone within 100 ms (median of 50)."""
    took = await left(service, "pid", 50)
    print(f"gone after {statistics.median(took) * 1000:.1f} ms (median), {max(took) * 1000:.1f} ms (worst)")
    assert statistics.median(took) < 0.1


async def test_an_agent_that_never_waits_is_told_too(service: Service) -> None:
    """One that says a million things without a pause is gone within a second when its caller leaves."""
    assert max(await left(service, "flood", 5)) < 1


async def test_resisting_is_of_no_use(service: Service) -> None:
    """An agent that swallows its cancellation is gone within 2.2 s, not before it had 2 s to clean up."""
    async with caller(service.address) as alice:
        call = alice.call("pid", "stubborn")
        pid = await pid_of(call)
        call.cancel()
        assert 1.9 < await until(lambda: is_gone(pid)) < 2.2


async def test_a_vanished_caller(service: Service) -> None:
    """A caller whose connection is reset has left, too."""
    channel = grpc.aio.insecure_channel(service.address)
    stub = channel.unary_stream(
        "/runwire.v1.EngineService/Run", pb.RunRequest.SerializeToString, pb.RunResponse.FromString
    )
    pid = await pid_of(stub(pb.RunRequest(agent="pid")))
    await channel.close(grace=None)
    await until(lambda: is_gone(pid))


@pytest.mark.parametrize("stays", [False, True])
async def test_what_it_started_ends_with_it(service: Service, *, stays: bool) -> None:
    """With an agent's process end those that it started, also those that left its group and session."""
    async with caller(service.address) as alice:
        call = alice.call("rogue", "leave_processes", parameters={"wait": stays})
        pids: list[int] = []
        async for response in call:
            for event in response.events:
                if event.HasField("agent_reported"):
                    pids = [int(pid) for pid in MessageToDict(event.agent_reported.data)["pids"]]
                    if stays:
                        assert not any(map(is_gone, pids))
                        call.cancel()
            if call.cancelled():
                break
    assert len(pids) == 3
    await until(lambda: all(map(is_gone, pids)))


async def test_cancel_is_told(service: Service) -> None:
    """`Cancel` stops one's own run, which still says `agent_cancelled`; another's run does not exist."""
    async with caller(service.address, "alice") as alice, caller(service.address, "bob") as bob:
        for agent in ("waiter", "task_waiter"):
            run_id = str(uuid.uuid4())
            call = alice.call(agent, run_id=run_id)
            assert await said(call) == "waiting"
            cancel = pb.CancelRequest(run_id=run_id)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await bob.stub.Cancel(cancel, metadata=bob.metadata)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            await alice.stub.Cancel(cancel, metadata=alice.metadata)
            [end] = [event async for response in call for event in response.events]
            assert (end.seq, end.agent_cancelled.reason) == (3, "Cancelled by its user.")
            assert await call.code() is grpc.StatusCode.OK


async def test_task_isolation_leaves_no_task(service: Service) -> None:
    """In task isolation, what an agent started and forgot ends with its run, too."""
    async with caller(service.address) as alice:
        assert terminal(await alice.run("task_rogue", "leave_a_task")).agent_completed.output == "left"
        call = alice.call("task_waiter")
        assert await said(call) == "waiting"
        call.cancel()
        assert terminal(await alice.run("task_rogue", "behave")).agent_completed.output == "well"


async def test_a_place_is_given_back_once(service: Service) -> None:
    """However a run ends, its place can be had again, and never twice: there are as many as before."""
    ways = ["behave", "fail", "raise_error", "os_exit", "kill_itself", "segfault", "write_garbage", "say_too_much"]
    async with caller(service.address) as alice:
        for way in ways * 2:
            terminal(await alice.run("rogue", way))
        for _ in range(6):
            (await waiting(alice)).cancel()
        await asyncio.wait_for(full(alice, 4), 10 * UNIT)


async def waiting(alice: Caller) -> Any:
    """Begin a run that waits, once there is a place: one that was left may still be ending."""
    while True:
        call = alice.call("waiter")
        try:
            await said(call)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        else:
            return call


async def full(alice: Caller, places: int) -> None:
    """Check that there are just so many places."""
    calls = [await waiting(alice) for _ in range(places)]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await said(alice.call("waiter"))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in calls:
        call.cancel()


async def test_the_zygotes_death(service: Service) -> None:
    """When the zygote dies, runs go on, a new one takes its place, and a run whose end can't be known is CRASHED."""
    async with caller(service.address, "zoe") as alice:
        ticking = alice.call("ticker", parameters={"ticks": 40})
        assert await said(ticking) == "0"
        waiting = alice.call("pid")
        pid = await pid_of(waiting)
        zygote = zygote_of(service)
        os.kill(zygote, signal.SIGKILL)
        service.wait_for(lambda record: record["event"] == "the zygote died")
        await until(lambda: zygotes_of(service) not in ([], [zygote]))

        rest = [event async for response in ticking for event in response.events]
        assert rest[-1].agent_completed.output == "done"
        os.kill(pid, signal.SIGKILL)
        end = [event async for response in waiting for event in response.events][-1]
        assert end.agent_failed.reason == FAILURE_REASON_CRASHED
        assert "not known" in end.agent_failed.message

        while True:
            try:
                assert kinds(await alice.run("echo", "again"))[-1] == "agent_completed"
                break
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def roomy() -> Iterator[Service]:
    """An engine with room for all that is still ending."""
    with start_engine(MAX_RUNS_PER_USER="100", MAX_SPARES="4") as started:
        yield started


@looks_inside
async def test_leaving_at_the_end(roomy: Service) -> None:
    """A caller who leaves on seeing the terminal event, while the process still ends, leaves nothing open either."""
    engine = psutil.Process(roomy.pid)
    async with caller(roomy.address, "yann") as yann:

        async def leave_at_the_end() -> None:
            call = yann.call("echo", "hi")
            async for response in call:
                if kinds(response.events)[-1] == "agent_completed":
                    call.cancel()
                    break

        for _ in range(5):
            await leave_at_the_end()
        await until(lambda: not working(roomy))
        before = engine.num_fds()
        for _ in range(30):
            await leave_at_the_end()
        # Each that leaked would leave one at least; those that wait for their run have a few, and come and go.
        await until(lambda: engine.num_fds() < before + 15)


async def test_leaving_while_the_work_is_handed_over(roomy: Service) -> None:
    """A caller who leaves before a large request has reached the process leaves no process behind."""
    engine = psutil.Process(roomy.pid)
    async with caller(roomy.address, "xaver") as xaver:
        await xaver.run("echo", "x" * 1_000_000)
        await until(lambda: not working(roomy))
        before = len(engine.children(recursive=True))
        for pause in range(30):
            call = xaver.call("echo", "x" * 1_000_000)
            await asyncio.sleep(pause / 5000)  # at another moment each time
            call.cancel()
        await until(lambda: len(engine.children(recursive=True)) <= before)


def working(engine: Service) -> bool:
    """Tell whether there are more processes than the zygote and the four that wait."""
    return len(psutil.Process(engine.pid).children(recursive=True)) != 5
