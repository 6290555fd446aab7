"""Law 4: every run that starts ends with exactly one terminal event, whatever its agent does."""

import asyncio
import contextlib
from collections.abc import Iterator

import grpc
import pytest
from runwire.v1 import events_pb2 as pb

from tests.support.clients import Caller, caller, kind, kinds, terminal
from tests.support.services import Service
from tests.support.services import engine as start_engine
from tests.support.times import UNIT

AGENT_ERROR = pb.FAILURE_REASON_AGENT_ERROR
TIMEOUT = pb.FAILURE_REASON_TIMEOUT
CRASHED = pb.FAILURE_REASON_CRASHED
RESOURCE_LIMIT = pb.FAILURE_REASON_RESOURCE_LIMIT

FAILURES = {
    "fail": (AGENT_ERROR, "The shop is closed."),
    "fail_for_now": (AGENT_ERROR, "The shop is busy."),
    "raise_error": (AGENT_ERROR, "incident"),
    "raise_strange": (AGENT_ERROR, "incident"),
    "raise_cancelled": (AGENT_ERROR, "incident"),
    "raise_interrupt": (AGENT_ERROR, "incident"),
    "return_number": (AGENT_ERROR, "incident"),
    "sys_exit": (AGENT_ERROR, "incident"),
    "sys_exit_in_task": (CRASHED, "exit status 3"),
    "os_exit": (CRASHED, "exit status 3"),
    "kill_itself": (CRASHED, "SIGKILL"),
    "segfault": (CRASHED, "SIGSEGV"),
    "eat_memory": (RESOURCE_LIMIT, "memory"),
    "close_descriptors": (CRASHED, "unexpectedly"),
    "close_all_descriptors": (CRASHED, "unexpectedly"),
    "say_too_much": (RESOURCE_LIMIT, "an event of"),
    "return_too_much": (RESOURCE_LIMIT, "an event of"),
    "tool_returns_too_much": (RESOURCE_LIMIT, "an event of"),
    "write_garbage": (CRASHED, "no event"),
    "write_endless_length": (CRASHED, "no event"),
    "write_torn_ending": (CRASHED, "no event"),
    "write_another_ending": (CRASHED, "no event"),
    "die_of_a_nameless_signal": (CRASHED, "killed by signal 40"),
    "fail_at_length": (AGENT_ERROR, "xxxx"),
    "tool_fails_at_length": (AGENT_ERROR, "xxxx"),
}
TOO_LONG = ("sleep", "compute", "swallow_cancellation", "slow_tool")
ENDINGS = {
    "behave": "well",
    "say_from_threads": "said",
    "say_after_the_end": "over",
    "leave_processes": "left",
    "leave_a_task": "left",
    "leave_a_thread": "left",
    "fork_itself": "forked",
    "fork_and_write": "0 0",
    "print_a_lot": "printed",
    "tool_fails": "went on",
    "tool_times_out": "went on",
    "go_on_in_two_processes": "twice",
    "report_deeply": "deep",
}


@pytest.fixture(scope="module")
def impatient() -> Iterator[Service]:
    """An engine whose runs may take two seconds, and 128 MiB."""
    with start_engine(agents="tests.agents.rogues", RUN_TIMEOUT=str(2 * UNIT), RUN_MEMORY="128MiB") as service:
        yield service


@pytest.mark.parametrize("way", FAILURES)
async def test_failing(impatient: Service, way: str) -> None:
    """However an agent fails, its run ends with one `agent_failed`, and the same agent is well again at once."""
    reason, says = FAILURES[way]
    async with caller(impatient.address) as alice:
        failed = terminal(await alice.run("rogue", way)).agent_failed
        assert (failed.reason, says in failed.message) == (reason, True), failed
        assert "secret" not in failed.message
        assert failed.retryable == (way == "fail_for_now" or reason in {TIMEOUT, CRASHED})
        assert terminal(await alice.run("rogue", "behave")).agent_completed.output == "well"


async def test_taking_too_long(impatient: Service) -> None:
    """Whatever an agent does with its time, and with its being told to stop, its run ends when its time is up."""
    async with caller(impatient.address) as alice:
        for events in await asyncio.gather(*(alice.run("rogue", way) for way in TOO_LONG)):
            failed = terminal(events).agent_failed
            assert (failed.reason, failed.retryable) == (TIMEOUT, True)
            assert "longer than it may" in failed.message
        assert terminal(await alice.run("rogue", "behave")).agent_completed.output == "well"


@pytest.mark.parametrize("way", ENDINGS)
async def test_completing(impatient: Service, way: str) -> None:
    """Whatever an agent leaves behind, its run ends with one `agent_completed`, and the next one is well."""
    async with caller(impatient.address) as alice:
        assert terminal(await alice.run("rogue", way)).agent_completed.output == ENDINGS[way]
        assert terminal(await alice.run("rogue", "behave")).agent_completed.output == "well"


@pytest.mark.parametrize(
    "way",
    [
        *("fail", "raise_error", "raise_strange", "sys_exit", "sys_exit_in_task", "raise_interrupt_in_task"),
        *("sleep", "swallow_cancellation", "slow_tool", "behave", "say_from_threads"),
    ],
)
async def test_in_the_engines_own_process(impatient: Service, way: str) -> None:
    """In task isolation the same holds for an agent that does not block."""
    async with caller(impatient.address) as alice:
        end = terminal(await alice.run("task_rogue", way))
        if way in ENDINGS:
            assert end.agent_completed.output == ENDINGS[way]
        elif way.endswith("_in_task"):
            assert end.agent_failed.reason == AGENT_ERROR
        else:
            reason, says = FAILURES.get(way, (TIMEOUT, "longer than it may"))
            assert (end.agent_failed.reason, says in end.agent_failed.message) == (reason, True)
        assert terminal(await alice.run("task_rogue", "behave")).agent_completed.output == "well"


async def test_the_callers_own_deadline() -> None:
    """A caller with a deadline hears of it as an event, before gRPC ends the call."""

    async def hurried(alice: Caller, way: str) -> list[pb.Event]:
        return [event async for response in alice.call("rogue", way, timeout=1) for event in response.events]

    with start_engine(agents="tests.agents.rogues") as service:
        async with caller(service.address) as alice:
            ways = ("sleep", "compute", "swallow_cancellation")
            for events in await asyncio.gather(*(hurried(alice, way) for way in ways)):
                assert terminal(events).agent_failed.reason == TIMEOUT


async def test_cleaning_up_is_heard(impatient: Service) -> None:
    """What an agent says while it cleans up comes before the terminal event."""
    async with caller(impatient.address) as alice:
        events = await alice.run("rogue", "clean_up")
    assert [event.agent_message.delta for event in events[1:-1]] == ["working", "cleaned up"]
    assert terminal(events).agent_failed.reason == TIMEOUT


async def test_the_incident_is_in_the_log(impatient: Service) -> None:
    """The id that a user sees leads to the traceback in the engine's log, and to nothing else."""
    async with caller(impatient.address) as alice:
        message = terminal(await alice.run("rogue", "raise_error")).agent_failed.message
    incident = message.partition("incident ")[2].rstrip(").")
    record = impatient.wait_for(lambda record: incident in record.get("traceback", ""))
    assert "ValueError: secret text" in record["traceback"]
    assert record["user_id"] == "alice"


async def test_what_it_prints_is_in_the_log(impatient: Service) -> None:
    """What an agent prints goes to the engine's log under its run's id, and not without end."""
    async with caller(impatient.address) as alice:
        call = alice.call("rogue", "print_a_lot")
        [run_id] = {response.run_id async for response in call}
    impatient.wait_for(lambda record: record.get("run_id") == run_id and "more than is logged" in record["event"])
    printed = [record for record in impatient.records if record.get("run_id") == run_id and "text" in record]
    lines = [line for record in printed for line in record["text"].splitlines()]
    assert "hello from the agent" in lines
    assert "and this goes to standard error" in lines
    assert sum(map(len, lines)) <= 256 * 1024
    assert len(printed) < 50


async def test_its_last_words_are_in_the_log(impatient: Service) -> None:
    """What an agent printed is in the log even when nothing could be flushed any more."""
    async with caller(impatient.address) as alice:
        events = await alice.run("rogue", "print_and_die")
    assert terminal(events).agent_failed.reason == CRASHED
    assert impatient.wait_for(lambda record: record.get("text") == "last words")["user_id"] == "alice"


async def test_every_tool_call_is_completed(impatient: Service) -> None:
    """`tool_executing` is always followed by its `tool_completed`: when it raises, times out, or is cancelled."""
    async with caller(impatient.address) as alice:
        for way in ("tool_fails", "tool_times_out", "slow_tool", "tool_returns_too_much", "tool_fails_at_length"):
            events = await alice.run("rogue", way)
            [executing] = [event.tool_executing for event in events if kind(event) == "tool_executing"]
            [completed] = [event.tool_completed for event in events if kind(event) == "tool_completed"]
            assert (completed.call_id, completed.tool) == (executing.call_id, executing.tool)
            assert completed.error
            assert kinds(events).index("tool_completed") > kinds(events).index("tool_executing")


async def test_sub_agents() -> None:
    """A sub-agent's events are nested in the same run; its failure is raised in its parent, which may try another."""
    with start_engine(agents="tests.agents.rogues,tests.agents.probes") as service:
        async with caller(service.address) as alice:
            events = await alice.run("parent", "rogue:raise_error,nobody:x,rogue:behave")
    assert terminal(events).agent_completed.output == "well"
    nested = [(event.agent, kind(event)) for event in events if event.agent != "parent"]
    assert nested == [
        ("parent/rogue", "agent_started"),
        ("parent/rogue", "agent_failed"),
        ("parent/rogue", "agent_started"),
        ("parent/rogue", "agent_completed"),
    ]
    said = [event.agent_message.delta for event in events if kind(event) == "agent_message"]
    assert "there is no agent named 'nobody' to delegate to" in said[1]


async def test_a_run_that_cannot_start_has_no_event(engine: Service) -> None:
    """A call that ends with an error before its first event never started a run."""
    async with caller(engine.address) as alice:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await alice.run("nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with contextlib.suppress(IndexError):
        assert "echo" in (caught.value.details() or "")
