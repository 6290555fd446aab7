"""A resumable run outlives its caller, and tells every event of it, once, in order."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from runwire.v1.events_pb2 import Event

from tests.support.clients import Caller, caller, kind, kinds, said, status, taken, terminal
from tests.support.services import Service, engine, is_gone
from tests.support.times import UNIT

StatusCode = grpc.StatusCode
MINUTE = Duration(seconds=60)
SHORT = Duration(nanos=300_000_000)
BUFFER = 64 * 1024


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with engine(MAX_RUNS_PER_USER="64", RESUME_BUFFER=str(BUFFER)) as running:
        yield running


@pytest_asyncio.fixture
async def alice(service: Service) -> AsyncGenerator[Caller]:
    async with caller(service.address) as alice:
        yield alice


def started(alice: Caller, agent: str, window: Duration = MINUTE, **parameters: Any) -> tuple[str, Any]:
    """Start a resumable run."""
    run_id = str(uuid.uuid4())
    return run_id, alice.call(agent, run_id=run_id, resume_window=window, parameters=parameters)


async def left(call: Any, upto: int) -> list[Event]:
    """Read a call up to an event, and hang up."""
    events = await taken(call, upto)
    call.cancel()
    return events


def ended(service: Service, run_id: str) -> dict[str, Any]:
    """Wait until a run is over."""
    return service.wait_for(lambda record: record["event"] == "run ended" and record["run_id"] == run_id)


async def test_goes_on_where_it_was_left(alice: Caller) -> None:
    run_id, call = started(alice, "echo", times=500)
    events = await left(call, 100)
    while kind(events[-1]) != "agent_completed":
        more = await left(alice.resume(run_id, events[-1].seq), events[-1].seq + 100)
        events += more
    assert terminal(events).seq == 502


async def test_is_readable_after_its_end(service: Service, alice: Caller) -> None:
    """Once over, it can be read as often as one likes, from anywhere, and reading it ends with OK."""
    run_id, call = started(alice, "echo", times=20)
    whole = await taken(call)
    assert kind(terminal(whole)) == "agent_completed"
    for after in (0, 7, 21, 22):
        assert await taken(alice.resume(run_id, after)) == whole[after:]
    assert ended(service, run_id)["events"] == 22


async def test_goes_on_without_anybody(service: Service, alice: Caller) -> None:
    run_id, call = started(alice, "ticker", ticks=10)
    await left(call, 2)
    assert ended(service, run_id)["ending"] == "agent_completed"
    assert terminal(await taken(alice.resume(run_id))).seq == 12


async def test_a_new_caller_takes_over(alice: Caller) -> None:
    run_id, call = started(alice, "ticker", ticks=20)
    events = await taken(call, 3)
    second = alice.resume(run_id, events[-1].seq)
    events += await taken(second, events[-1].seq + 3)
    assert await status(call) is StatusCode.ABORTED
    events += await taken(alice.resume(run_id, events[-1].seq))
    assert await status(second) is StatusCode.ABORTED
    assert terminal(events).seq == 22


async def test_a_caller_who_does_not_read_is_sent_away_too() -> None:
    """Its call ends, whatever is still on its way to it, and the new caller gets all that it did not read."""
    with engine() as service:
        async with caller(service.address) as slow, caller(service.address) as other:
            run_id, call = started(slow, "flood", events=60_000)
            events = await taken(call, 2)
            await _stands_still(int(events[1].agent_message.delta))
            events += await taken(other.resume(run_id, events[-1].seq))
            assert terminal(events).seq == 60_003
            assert await status(call) is StatusCode.ABORTED


async def test_a_quiet_run_says_at_once_that_one_is_attached(alice: Caller) -> None:
    run_id, call = started(alice, "waiter")
    await left(call, 2)
    resumed = alice.resume(run_id, 2)
    first = await anext(aiter(resumed))
    assert (first.run_id, list(first.events)) == (run_id, [])
    await alice.cancel(run_id)
    assert kinds(await taken(resumed)) == ["agent_cancelled"]


async def test_cancel(service: Service, alice: Caller) -> None:
    """A run that nobody reads is stopped too, its end can be read, and stopping it again changes nothing."""
    run_id, call = started(alice, "waiter")
    await left(call, 2)
    await alice.cancel(run_id)
    assert ended(service, run_id)["ending"] == "agent_cancelled"
    events = await taken(alice.resume(run_id))
    assert kind(terminal(events)) == "agent_cancelled"
    await alice.cancel(run_id)
    assert await taken(alice.resume(run_id)) == events


async def test_cancel_while_there_is_no_room(service: Service, alice: Caller) -> None:
    """A run that waits for room ends when it is told to; what is there can be read, and its end."""
    run_id, call = started(alice, "flood")
    events = await left(call, 2)
    pid = int(events[1].agent_message.delta)
    await _stands_still(pid)
    await alice.cancel(run_id)
    ended(service, run_id)
    assert is_gone(pid)
    try:
        events += await taken(alice.resume(run_id, events[-1].seq))
    except grpc.aio.AioRpcError as error:
        assert error.code() is StatusCode.OUT_OF_RANGE
    else:
        assert kind(terminal(events)) == "agent_cancelled"


async def test_the_window_passes(service: Service, alice: Caller) -> None:
    """Nobody comes back: the run is cancelled, can be read for as long again, and is forgotten."""
    run_id, call = started(alice, "waiter", window=SHORT)
    await left(call, 2)
    left_at = time.monotonic()
    assert ended(service, run_id)["ending"] == "agent_cancelled"
    assert time.monotonic() - left_at > 0.25
    assert kind(terminal(await taken(alice.resume(run_id)))) == "agent_cancelled"
    read_at = time.monotonic()
    while await _is_there(alice, run_id):
        assert time.monotonic() - read_at < 2 * UNIT
    assert time.monotonic() - read_at > 0.25
    assert await status(alice.resume(run_id)) is StatusCode.NOT_FOUND


async def _is_there(alice: Caller, run_id: str) -> bool:
    """Tell whether a run that is over can still be read. Cancelling it changes nothing, and tells."""
    try:
        await alice.cancel(run_id)
    except grpc.aio.AioRpcError as error:
        assert error.code() is StatusCode.NOT_FOUND
        return False
    return True


async def test_the_window_does_not_pass_while_somebody_reads(alice: Caller) -> None:
    run_id, call = started(alice, "ticker", window=SHORT, ticks=20)
    assert terminal(await taken(call)).seq == 22
    assert (await taken(alice.resume(run_id, 20)))[-1].seq == 22


async def test_what_there_is_not(service: Service, alice: Caller) -> None:
    run_id, call = started(alice, "echo", times=3)
    await taken(call)
    plain = alice.call("waiter", run_id=str(uuid.uuid4()))
    await said(plain)
    async with caller(service.address, "bob") as bob:
        assert await status(bob.resume(run_id)) is StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await bob.cancel(run_id)
        assert refused.value.code() is StatusCode.NOT_FOUND
    assert await status(alice.resume(str(uuid.uuid4()))) is StatusCode.NOT_FOUND
    assert await status(alice.resume("x")) is StatusCode.INVALID_ARGUMENT
    assert await status(alice.resume(run_id, 6)) is StatusCode.OUT_OF_RANGE
    assert await status(alice.resume(await _run_id(alice))) is StatusCode.NOT_FOUND
    plain.cancel()


async def _run_id(alice: Caller) -> str:
    """Return the id of a run that is not resumable, and still going on."""
    call = alice.call("ticker")
    return str((await anext(aiter(call))).run_id)


async def test_a_wrong_position_disturbs_nobody(alice: Caller) -> None:
    run_id, call = started(alice, "ticker", ticks=10)
    events = await taken(call, 1)
    assert await status(alice.resume(run_id, 1000)) is StatusCode.OUT_OF_RANGE
    assert terminal(events + await taken(call)).seq == 12


async def test_what_was_pushed_out_is_not_there(alice: Caller) -> None:
    """What was sent and is no longer kept is never skipped silently; what is kept is the newest."""
    run_id, call = started(alice, "echo", times=5000)
    whole = await taken(call)
    assert await status(alice.resume(run_id)) is StatusCode.OUT_OF_RANGE
    assert await taken(alice.resume(run_id, 4500)) == whole[4500:]


async def test_ids_stay_taken(alice: Caller) -> None:
    """As long as a run can be read, there is no other of its id."""
    run_id, call = started(alice, "echo")
    await taken(call)
    again = alice.call("echo", run_id=run_id)
    assert await status(again) is StatusCode.ALREADY_EXISTS


async def test_windows(alice: Caller) -> None:
    for seconds in (3601, 2**40, -1):
        call = alice.call("echo", resume_window=Duration(seconds=seconds))
        assert await status(call) is StatusCode.INVALID_ARGUMENT, seconds
    assert await status(alice.call("echo", resume_window=Duration(seconds=3600))) is StatusCode.OK


async def test_a_deadline_ends_the_call_and_not_the_run(alice: Caller) -> None:
    run_id = str(uuid.uuid4())
    call = alice.call("ticker", run_id=run_id, resume_window=MINUTE, timeout=0.4, parameters={"ticks": 15})
    assert await status(call) is StatusCode.DEADLINE_EXCEEDED
    assert kind(terminal(await taken(alice.resume(run_id)))) == "agent_completed"


async def test_a_run_without_a_caller_counts() -> None:
    with engine(MAX_RUNS_PER_USER="1") as small:
        async with caller(small.address) as carol:
            run_id, call = started(carol, "waiter")
            await left(call, 2)
            assert await status(carol.call("echo")) is StatusCode.RESOURCE_EXHAUSTED
            await carol.cancel(run_id)
            await taken(carol.resume(run_id))
            # Over is over: whoever has seen the end may start the next one at once.
            for _ in range(20):
                _, call = started(carol, "echo")
                assert kind(terminal(await taken(call))) == "agent_completed"


async def test_draining_waits_for_a_run_without_a_caller() -> None:
    with engine(DRAIN_GRACE="20") as leaving:
        async with caller(leaving.address) as carol:
            run_id, call = started(carol, "ticker", ticks=20)
            events = await left(call, 3)
            leaving.process.terminate()
            leaving.wait_for(lambda record: record["event"] == "draining")
            events += await taken(carol.resume(run_id, events[-1].seq))
            assert terminal(events).seq == 22
        assert leaving.wait() == 0


async def test_drained() -> None:
    """A run without a caller that doesn't end in time is ended as others are."""
    with engine(DRAIN_GRACE="0.2") as leaving:
        async with caller(leaving.address) as carol:
            run_id, call = started(carol, "waiter")
            await left(call, 2)
            leaving.process.terminate()
            assert ended(leaving, run_id)["reason"] == "engine_draining"
        assert leaving.wait() == 0


async def test_a_cut_of_five_seconds() -> None:
    """Nobody reads a fast run for 5 s: it waits, at no cost; then it goes on, and nothing is missing."""
    with engine() as fast:
        async with caller(fast.address) as carol:
            run_id, call = started(carol, "flood", events=60_000)
            events = await taken(call, 1000)
            call.cancel()
            pid = int(events[1].agent_message.delta)
            await _stands_still(pid)
            memory, worked = _memory(fast, pid), _worked(pid)
            await asyncio.sleep(5)  # the cut itself
            assert _memory(fast, pid) - memory < 1024 * 1024
            assert _worked(pid) - worked < 0.05, "it did not wait"
            events += await taken(carol.resume(run_id, events[-1].seq))
            assert terminal(events).seq == 60_003


@pytest.mark.measures
async def test_resuming_a_thousand_events_is_quick() -> None:
    with engine() as fresh:
        async with caller(fresh.address) as carol:
            run_id, call = started(carol, "echo", times=998)
            assert len(await taken(call)) == 1000
            took = []
            for _ in range(10):
                begun = time.perf_counter()
                assert len(await taken(carol.resume(run_id))) == 1000
                took.append(time.perf_counter() - begun)
            print(f"1,000 buffered events: {sorted(took)[5] * 1000:.1f} ms (median), {min(took) * 1000:.1f} ms (best)")
            assert sorted(took)[5] < 0.02


async def _stands_still(pid: int) -> None:
    """Wait until a process does nothing any more. One look is not enough: others may have had the processors."""
    looks = [-1.0]
    while len(looks) < 4 or len(set(looks[-4:])) > 1:
        looks.append(_worked(pid))
        await asyncio.sleep(0.3)


def _worked(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _memory(service: Service, pid: int) -> int:
    return sum(int(psutil.Process(each).memory_info().rss) for each in (service.pid, pid))


async def test_what_is_left_behind_is_bounded(service: Service, alice: Caller) -> None:
    """A user who leaves runs behind loses their own oldest, never the one that has just ended, nor one that is read."""
    first, call = started(alice, "ticker", ticks=30)
    reading = asyncio.create_task(taken(call))
    ids = []
    for _ in range(105):
        run_id, quick = started(alice, "echo")
        ids.append(run_id)
        await taken(quick)
    assert terminal(await reading).seq == 32
    assert await status(alice.resume(first)) is StatusCode.OK
    assert await status(alice.resume(ids[-1])) is StatusCode.OK
    assert await status(alice.resume(ids[0])) is StatusCode.NOT_FOUND
    async with caller(service.address, "bob") as bob:
        run_id, call = started(bob, "echo")
        await taken(call)
        assert await status(bob.resume(run_id)) is StatusCode.OK


@pytest.mark.measures
async def test_much_that_nobody_reads() -> None:
    """What runs leave behind doesn't fill the engine's memory, whatever they were asked and whatever they said."""
    with engine(RESUME_BUFFER=str(BUFFER), RESUME_MEMORY="1MiB", MAX_RUNS_PER_USER="64") as small:
        assert small.address
        before = psutil.Process(small.pid).memory_info().rss
        for user in ("alice", "bob"):
            async with caller(small.address, user) as somebody:
                for _ in range(40):
                    call = somebody.call("echo", "x" * 500_000, resume_window=MINUTE)
                    try:
                        await left(call, 1)
                    except grpc.aio.AioRpcError as error:  # there is room for no more
                        assert error.code() is StatusCode.RESOURCE_EXHAUSTED
        assert psutil.Process(small.pid).memory_info().rss - before < 40 * 2**20


async def test_draining_waits_for_a_caller_who_reads_what_was_said() -> None:
    """A run that is over, and whose caller is not done with it, is not cut off."""
    with engine(DRAIN_GRACE="20") as leaving:
        async with caller(leaving.address) as carol:
            run_id, call = started(carol, "flood", events=8_000)
            events = await taken(call, 10)
            ended(leaving, run_id)
            leaving.process.terminate()
            leaving.wait_for(lambda record: record["event"] == "draining")
            await asyncio.sleep(1.5)  # longer than gRPC would wait for nothing
            events += await taken(call)
            assert terminal(events).seq == 8_003
        assert leaving.wait() == 0
