"""One run's life, with a worker by hand."""

import asyncio
from typing import Any

import pytest
import structlog
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import AnswerRequest, RunResponse

from engine_service.clock import Clock
from engine_service.runs.refusal import Code, Refusal
from engine_service.runs.run import CANCELLED, MAX_NOTES, TIMED_OUT, Patience, Run
from engine_service.wire import GRACE
from engine_service.workers import KILLED, WorkerError
from tests.support.workers import HandWorker, HandWorkers, work

LONG = 60.0
ACCEPTED = AnswerRequest(request_id="q", outcome=pb.INPUT_OUTCOME_ACCEPTED)


async def begun(seconds: float = LONG, grace: float = GRACE) -> tuple[Run, HandWorker]:
    workers = HandWorkers()
    run = Run(work(), workers, max_event_bytes=1024)
    await run.start(LONG, Patience(seconds, grace))
    return run, workers.given[0]


async def rest(run: Run) -> list[pb.Event]:
    """Read a run to its end."""
    told = b""
    while events := await run.next():
        told += events
    assert run.is_over
    return list(RunResponse.FromString(told).events)


async def test_to_its_own_end() -> None:
    """What the agent says comes out, numbered, and its ending last; closing it leaves nothing."""
    run, worker = await begun()
    worker.say("a")
    worker.say("b")
    worker.end()
    events = await rest(run)
    assert [event.seq for event in events] == [1, 2, 3]
    assert run.count == 3
    assert events[-1].agent_completed.output == "done"
    assert worker.graces == []
    await run.close()
    await run.close()
    assert (worker.closed, worker.graces) == (1, [])
    assert await run.next() == b""


async def test_told_to_stop() -> None:
    """The verdict is the end, though the agent says another; the first one stands, and so does its grace."""
    run, worker = await begun()
    stopped = []
    run.on_stop = lambda: stopped.append(True)
    run.stop(CANCELLED, 0.5)
    run.stop(TIMED_OUT, 60)
    assert run.is_stopped
    worker.end()
    events = await rest(run)
    assert [event.WhichOneof("kind") for event in events] == ["agent_cancelled"]
    assert worker.graces[0] == 0.5
    assert 60 not in worker.graces
    assert stopped == [True]
    await run.close()


async def test_out_of_time() -> None:
    """A run that takes too long is told to stop, with the grace that was said, and ends so."""
    run, worker = await begun(seconds=0.02, grace=0.7)
    events = await rest(run)
    assert events[-1].agent_failed.reason == pb.FAILURE_REASON_TIMEOUT
    assert worker.graces[0] == 0.7
    await run.close()


async def test_a_worker_that_comes_too_late() -> None:
    """A run for which there is no worker in its time has not begun."""
    workers = HandWorkers()
    workers.may_start.clear()
    run = Run(work(), workers, max_event_bytes=1024)
    with pytest.raises(WorkerError, match="in time"):
        await run.start(0.02)
    await run.close()
    assert workers.given == []


async def test_no_worker() -> None:
    """A run for which there is no worker at all has not begun either."""
    workers = HandWorkers()
    workers.is_out = True
    with pytest.raises(WorkerError, match="none"):
        await Run(work(), workers, max_event_bytes=1024).start(LONG)


async def test_stopped_before_it_has_a_worker() -> None:
    """Whoever was told to stop while it began is, as soon as there is a worker."""
    workers = HandWorkers()
    workers.may_start.clear()
    run = Run(work(), workers, max_event_bytes=1024)
    starting = asyncio.create_task(run.start(LONG, Patience(LONG, 0.3)))
    await asyncio.sleep(0)
    run.stop(CANCELLED)
    workers.may_start.set()
    await starting
    assert workers.given[0].graces == [0.3]
    assert (await rest(run))[-1].HasField("agent_cancelled")
    await run.close()


async def test_time_that_stands_still() -> None:
    """A run has its time besides that in which it waits for its user; its caller has no more patience than before."""
    run, worker = await begun(seconds=LONG)
    run._clock = Clock(0.2, asyncio.get_running_loop().time())
    worker.ask("q")
    worker.wait(is_waiting=True)
    reading = asyncio.create_task(rest(run))
    await asyncio.sleep(0.4)
    assert not run.is_stopped
    run.questions.answer(ACCEPTED, "alice")
    assert [answered.request_id for answered in worker.told] == ["q"]
    events = await reading  # it says no more, and its time goes on
    assert events[-1].agent_failed.reason == pb.FAILURE_REASON_TIMEOUT
    await run.close()


async def test_a_question_that_is_none() -> None:
    """What is asked twice, or without a name, or is too much, is no question: the stream is broken."""
    wrong = [("q", 60.0), ("q", 60.0)], [("", 60.0)], [(str(number), 60.0) for number in range(65)], [("q" * 65, 60.0)]
    for asked in (*wrong, [("q", 0.0)], [("q", -5.0)], [("q", 1e10)]):
        run, worker = await begun()
        for request_id, seconds in asked:
            worker.ask(request_id, seconds)
        events = await rest(run)
        assert events[-1].agent_failed.reason == pb.FAILURE_REASON_CRASHED
        await run.close()


async def test_a_question_that_expires() -> None:
    """Its agent is told, and then it is too late."""
    run, worker = await begun()
    worker.ask("q", seconds=0.05)
    await run.next()
    await asyncio.sleep(0.2)
    assert [answered.outcome for answered in worker.told] == [pb.INPUT_OUTCOME_EXPIRED]
    with pytest.raises(Refusal) as refused:
        run.questions.answer(ACCEPTED, "alice")
    assert refused.value.code is Code.FAILED_PRECONDITION
    run.stop(CANCELLED)
    await rest(run)
    await run.close()


async def test_a_channel_that_is_closed() -> None:
    """An agent that can say no more is ended at once, and its run as what it is: crashed."""
    run, worker = await begun()
    worker.say()
    worker.fall_silent()
    worker.how = "exit status 3"
    events = await rest(run)
    assert events[-1].agent_failed.reason == pb.FAILURE_REASON_CRASHED
    assert "exit status 3" in events[-1].agent_failed.message
    assert events[-1].seq == 2
    assert worker.graces == [0]
    await run.close()
    assert worker.closed == 1


async def test_what_is_no_event() -> None:
    """An agent that breaks its own stream is ended at once; whoever waits for its caller hears of it, once."""
    run, worker = await begun()
    stopped = []
    run.on_stop = lambda: stopped.append(True)
    worker.write(b"garbage")
    worker.write(b"more of it")
    worker.fall_silent()
    events = await rest(run)
    assert "no event" in events[-1].agent_failed.message
    assert worker.graces == [0, 0]  # and once more when it had closed its channel
    assert stopped == [True]
    await run.close()


async def test_tracebacks_that_are_logged() -> None:
    """The log has what went wrong in the agent, and not more than so much of it."""
    with structlog.testing.capture_logs() as lines:
        run, worker = await begun()
        for number in range(MAX_NOTES + 5):
            worker.note(f"note {number}")
        worker.end()
        await rest(run)
        await run.close()
    notes = [line["traceback"] for line in lines if line["event"] == "agent failed"]
    assert notes == [f"note {number}" for number in range(MAX_NOTES)]


async def test_left_in_the_middle() -> None:
    """A run that its caller leaves is told to stop, with the usual grace, and its worker closed."""
    run, worker = await begun()
    worker.say()
    await run.next()
    await run.close()
    assert (worker.graces, worker.closed) == ([GRACE], 1)


async def test_closing_goes_on_when_it_is_cancelled() -> None:
    """Whoever is cancelled while the worker is closed is so when that is done, and not before."""
    run, worker = await begun()
    worker.may_close.clear()
    closing = asyncio.create_task(run.close())
    await asyncio.sleep(0)
    for _ in range(3):
        closing.cancel()
        await asyncio.sleep(0)
    assert not closing.done()
    worker.may_close.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert worker.closed == 1


@pytest.mark.parametrize(("how", "said"), [(KILLED, ["a process did not end in time"]), ("exit status 0", [])])
async def test_a_process_that_does_not_end(how: str, said: list[str]) -> None:
    """A process that had said its last and had to be killed is told in the log."""
    with structlog.testing.capture_logs() as lines:
        run, worker = await begun()
        worker.end()
        await rest(run)
        worker.how = how
        await run.close()
    warned: list[Any] = [line["event"].partition(":")[0] for line in lines if line["log_level"] == "warning"]
    assert warned == said


async def test_the_end_in_the_log() -> None:
    """The log says how it ended, and why if it failed; not what the agent told its user."""
    with structlog.testing.capture_logs() as lines:
        run, _ = await begun()
        run.stop(TIMED_OUT)
        await rest(run)
        await run.close()
    [ended] = [line for line in lines if line["event"] == "run ended"]
    assert (ended["ending"], ended["reason"], ended["events"]) == ("agent_failed", "timeout", 1)
    assert not any(TIMED_OUT.message in str(line) for line in lines)


async def test_garbage_after_the_verdict() -> None:
    """Whoever is told to stop, and then breaks the stream, still has the time that was given; nobody hears twice."""
    with structlog.testing.capture_logs() as lines:
        run, worker = await begun()
        stopped = []
        run.on_stop = lambda: stopped.append(True)
        run.stop(CANCELLED, 1.5)
        worker.write(b"garbage")
        worker._said._queue.rotate(1)  # type: ignore[attr-defined]  # it is read before the channel's end
        await rest(run)
        await run.close()
    assert worker.graces == [1.5, 0]  # when it has closed its channel, and not when it says what is no event
    assert stopped == [True]
    assert not [line for line in lines if "broke its own stream" in line["event"]]


async def test_one_that_crashed_is_not_slow() -> None:
    """A process that was killed in mid-run is told as crashed, and not as one that took its time at its end."""
    with structlog.testing.capture_logs() as lines:
        run, worker = await begun()
        worker.fall_silent()
        worker.how = KILLED
        assert (await rest(run))[-1].HasField("agent_failed")
        await run.close()
    assert not [line for line in lines if line["log_level"] == "warning"]
