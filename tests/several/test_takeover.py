"""An agent that saved what it can go on from goes on at another engine, when its own is gone."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import AnswerRequest, ListRunsRequest
from runwire.v1.events_pb2 import Event

from tests.several.conftest import AGENTS
from tests.several.test_several import LONG, begun, numbers
from tests.support.clients import Caller, caller, kind, status, taken, terminal
from tests.support.lasting import Lasting
from tests.support.services import Service, until
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.times import UNIT
from tests.support.valkey import Valkey

Engines = tuple[Service, Service]
StatusCode = grpc.StatusCode
Death = Callable[[], Awaitable[None]]
"""Waits until all stories are at this point; then their engine is killed."""


def recovered(events: list[Event]) -> list[Event]:
    return [event for event in events if kind(event) == "agent_recovered"]


def valid(events: list[Event]) -> list[str]:
    """Return what was said, without what is void: as whoever draws it has to."""
    said: list[tuple[int, str]] = []
    for event in events:
        if kind(event) == "agent_message":
            said.append((event.seq, event.agent_message.delta))
        elif kind(event) == "agent_recovered":
            said = [(seq, text) for seq, text in said if seq <= event.agent_recovered.checkpoint_seq]
    return [text for _, text in said]


async def upto(call: Any, wanted: str, many: int = 1) -> list[Event]:
    """Read a call until there are so many events of a kind."""
    events: list[Event] = []
    async for response in call:
        events += response.events
        if sum(1 for event in events if kind(event) == wanted) >= many:
            return events
    return events


async def answered(caller: Caller, run_id: str, request: pb.InputRequested, **content: Any) -> None:
    fields = Struct()
    fields.update(content)
    answer = AnswerRequest(
        run_id=run_id, request_id=request.request_id, outcome=pb.INPUT_OUTCOME_ACCEPTED, content=fields
    )
    await caller.stub.Answer(answer, metadata=caller.metadata)


def asked(events: list[Event]) -> dict[str, pb.InputRequested]:
    """Return what was asked, the newest by its message."""
    found = (event.input_requested for event in events if kind(event) == "input_requested")
    return {request.message: request for request in found}


async def it_goes_on(here: Caller, there: Caller, death: Death) -> None:
    """Its run goes on where it saved, with numbers that follow; what it said since is void, and said anew."""
    run_id, seen, call = await begun(here, "saver", parameters={"times": 40, "every": 7, "pause": 0.05})
    seen += await taken(call, 14)
    reading = there.resume(run_id, seen[-1].seq)
    began = time.monotonic()
    await death()
    seen += await taken(reading, None)
    print(f"from the kill to the end: {time.monotonic() - began:.1f} s")
    assert numbers(seen) == list(range(1, len(seen) + 1))
    [event] = recovered(seen)
    saved_at = event.agent_recovered.checkpoint_seq
    assert (event.agent, event.agent_recovered.attempt) == ("saver", 2)
    assert saved_at < event.seq
    assert kind(seen[saved_at - 1]) == "agent_message", "it saves behind what it said"
    assert kind(seen[-1]) == "agent_completed"
    assert valid(seen) == [f"{run_id} {number}" for number in range(40)]
    assert await taken(there.resume(run_id, 0), None) == seen


async def what_was_open(here: Caller, there: Caller, death: Death) -> None:
    """Calls have an unknown outcome and are told to the agent, sub-agents have failed, and keys are what they were."""
    run_id = str(uuid.uuid4())
    call = here.call("dweller", run_id=run_id, resume_window=LONG)
    seen = await upto(call, "input_requested")
    while sum(1 for event in seen if kind(event) == "tool_executing") < 2:
        seen += (await anext(aiter(call))).events
    before = seen[-1].seq
    await death()
    seen += await upto(there.resume(run_id, before), "input_requested")
    assert numbers(seen) == list(range(1, len(seen) + 1))
    [event] = recovered(seen)
    behind = seen[event.seq :]
    open_calls = {e.tool_executing.call_id: e.agent for e in seen[:before] if kind(e) == "tool_executing"}
    closed = {e.tool_completed.call_id: e for e in behind if kind(e) == "tool_completed"}
    assert {call_id: e.agent for call_id, e in closed.items()} == open_calls
    assert all("not known" in e.tool_completed.error for e in closed.values())
    [failed] = [e for e in behind if kind(e) == "agent_failed"]
    assert (failed.agent, failed.agent_failed.reason) == ("dweller/below", pb.FAILURE_REASON_ENGINE_LOST)
    interrupted = [MessageToDict(e.agent_reported.data) for e in behind if kind(e) == "agent_reported"]
    assert [(each["agent"], each["tool"], each["arguments"]) for each in interrupted] == [
        ("dweller", "stay", {"amount": 40}), ("dweller/below", "stay", {"amount": 1})
    ]  # fmt: skip
    keys = [e.agent_message.delta for e in seen if kind(e) == "agent_message" and "key" in e.agent_message.delta]
    assert keys[:2] == keys[2:]
    assert keys[0] != keys[1]
    assert "again from {'step': 1}" in valid(seen)[1]

    [approval] = [e.input_requested for e in behind if kind(e) == "input_requested"]
    assert approval.tool == "pay"
    earlier = asked(seen[:before])["Which one?"]
    with pytest.raises(grpc.aio.AioRpcError, match="about to be asked again") as refused:
        await answered(there, run_id, earlier, one="this")
    assert refused.value.code() is StatusCode.UNAVAILABLE
    reading = there.resume(run_id, seen[-1].seq)
    await answered(there, run_id, approval)
    seen += await upto(reading, "input_requested")
    executed = next(e.tool_executing for e in reversed(seen) if kind(e) == "tool_executing")
    assert executed.call_id == approval.call_id not in open_calls
    assert asked(seen[before:])["Which one?"].request_id == earlier.request_id, "it is the same question"
    [run] = (await there.stub.ListRuns(ListRunsRequest(), metadata=there.metadata)).runs
    assert [question.request_id for question in run.questions] == [earlier.request_id]
    await answered(there, run_id, earlier, one="this")
    seen += await taken(there.resume(run_id, seen[-1].seq), None)
    assert terminal(seen).agent_completed.output == "this"
    assert terminal(seen).agent_completed.usage.models[0].requests == 2, "of both attempts"
    settled = [e.input_answered.request_id for e in seen if kind(e) == "input_answered"]
    assert sorted(settled) == sorted({approval.request_id, earlier.request_id})


async def a_question_that_is_not_asked_again(here: Caller, there: Caller, death: Death) -> None:
    """When the agent saves anew, it is past that question: it has expired."""
    run_id = str(uuid.uuid4())
    call = here.call("dweller", run_id=run_id, resume_window=LONG, parameters={"other": 1})
    seen = await upto(call, "input_requested")
    earlier = asked(seen)["Which one?"]
    await death()
    seen += await upto(there.resume(run_id, seen[-1].seq), "input_requested")
    await answered(there, run_id, asked(seen)["May pay be called?"])
    seen += await upto(there.resume(run_id, seen[-1].seq), "input_requested")
    later = asked(seen)["Which one?"]
    assert later.request_id != earlier.request_id
    settled = {e.input_answered.request_id: e.input_answered.outcome for e in seen if kind(e) == "input_answered"}
    assert settled[earlier.request_id] == pb.INPUT_OUTCOME_EXPIRED
    with pytest.raises(grpc.aio.AioRpcError, match="too late"):
        await answered(there, run_id, earlier, one="this")
    await there.cancel(run_id)


async def what_was_open_before_much_was_said(here: Caller, there: Caller, death: Death) -> None:
    """What has begun long ago is known also where its beginning is not kept any more."""
    run_id, seen, call = await begun(here, "long_winded")
    seen += await upto(call, "agent_reported")
    await death()
    rest = await upto(there.resume(run_id, seen[-1].seq), "tool_completed")
    begun_calls = [e.tool_executing.call_id for e in seen if kind(e) == "tool_executing"]
    assert [e.tool_completed.call_id for e in rest if kind(e) == "tool_completed"] == begun_calls
    assert await status(there.resume(run_id, 0)) is StatusCode.OUT_OF_RANGE, "its beginning is not kept"
    await there.cancel(run_id)


async def agents_that_are_never_started_twice(here: Caller, there: Caller, death: Death) -> None:
    """Those that have not saved end with ENGINE_LOST, and so do tasks, though they have."""
    never, seen_never, _ = await begun(here, "saver", parameters={"times": 1000, "every": 999, "pause": 10})
    task, seen_task, _ = await begun(here, "task_saver", parameters={"times": 1000, "pause": 0.5})
    await death()
    for run_id, seen in ((never, seen_never), (task, seen_task)):
        events = seen + await taken(there.resume(run_id, seen[-1].seq), None)
        assert not recovered(events)
        assert terminal(events).agent_failed.reason == pb.FAILURE_REASON_ENGINE_LOST


async def the_last_reader_reads(here: Caller, there: Caller, death: Death) -> None:
    """One who waited for a run that goes on is sent away by the next one, and doesn't come back behind it."""
    run_id, seen, call = await begun(here, "saver", parameters={"times": 150, "pause": 0.05})
    seen += await taken(call, 6)
    await death()
    earlier = there.resume(run_id, seen[-1].seq)
    seen += await upto(earlier, "agent_recovered")  # from the store: its engine is not known yet
    later = there.resume(run_id, seen[-1].seq)
    seen += await taken(later, seen[-1].seq + 30)
    assert await status(earlier) is StatusCode.ABORTED
    assert recovered(seen)
    await there.cancel(run_id)
    assert kind((await taken(later, None))[-1]) == "agent_cancelled"


STORIES = (
    the_last_reader_reads,
    it_goes_on,
    what_was_open,
    a_question_that_is_not_asked_again,
    what_was_open_before_much_was_said,
    agents_that_are_never_started_twice,
)


async def test_an_engine_is_killed(engines: Engines) -> None:
    """Under all of these at once: each of its users' runs goes on, or ends."""
    one, other = engines
    all_are_there = asyncio.Barrier(len(STORIES))

    async def death() -> None:
        if await all_are_there.wait() == 0:
            one.kill()

    async def told(story: Callable[[Caller, Caller, Death], Awaitable[None]]) -> None:
        user = story.__name__
        async with caller(one.address, user) as here, caller(other.address, user) as there:
            await story(here, there, death)

    async with asyncio.TaskGroup() as group:
        for story in STORIES:
            group.create_task(told(story))


@pytest.mark.force
async def test_a_paused_engine(engines: Engines) -> None:
    """One that is paused for longer than its lease finds its run gone on elsewhere, and writes nothing into it."""
    one, other = engines
    async with caller(one.address) as here, caller(other.address) as there:
        run_id, _, call = await begun(here, "saver", parameters={"times": 60, "pause": 0.1})
        await taken(call, 5)  # it has saved
        one.pause()
        try:
            seen = await upto(there.resume(run_id, 0), "agent_recovered")
        finally:
            one.go_on()
        one.wait_for(lambda record: record["event"] == "run handed over")
        seen += await taken(here.resume(run_id, seen[-1].seq), None)  # read on where it was lost
        assert numbers(seen) == list(range(1, len(seen) + 1))
        assert len(recovered(seen)) == 1
        assert valid(seen) == [f"{run_id} {number}" for number in range(60)]


@pytest.mark.force
async def test_an_engine_is_told_to_stop(store: Valkey) -> None:
    """Its runs that saved go on elsewhere at once; no reader sees a failure, and each number is said once."""
    options = {"agents": AGENTS, "STORE": store.url, "DRAIN_GRACE": "20"}
    with (
        start_engine(**options) as one,
        start_engine(**options) as other,
        start_gateway(f"{one.address},{other.address}") as front,
    ):
        clients = [Lasting(front.address, f"user-{number}") for number in range(20)]
        running = [asyncio.create_task(each.run("saver", times=80, pause=0.05)) for each in clients]
        await until(lambda: all(len(each.seqs) > 5 for each in clients))
        began = time.monotonic()
        one.process.terminate()
        await asyncio.to_thread(one.wait)
        assert time.monotonic() - began < 10 * UNIT, "it does not wait for those who can go on elsewhere"
        await asyncio.gather(*running)
    lost = [each.run_id for each in clients if each.recoveries]
    print(f"{len(lost)} of 20 went on elsewhere")
    assert lost
    for client in clients:
        assert (client.ending, client.reason) == ("agentCompleted", "")
        assert client.seqs == list(range(1, len(client.seqs) + 1))
        assert client.valid == [f"{client.run_id} {number}" for number in range(80)]


@pytest.mark.force
async def test_three_attempts(store: Valkey, tmp_path: Path) -> None:
    """A run that ends engines is started again three times from one checkpoint, and then no more."""
    told = tmp_path / "pid"
    options = {"agents": AGENTS, "STORE": store.url}
    with ExitStack() as stack:
        services = [stack.enter_context(start_engine(**options)) for _ in range(2)]
        async with caller(services[0].address) as alice:
            run_id = str(uuid.uuid4())
            call = alice.call("stubborn", run_id=run_id, resume_window=LONG, parameters={"file": str(told)})
            seen = await taken(call, 2)
        for attempt in (1, 2, 3, 4):
            owner = next(service for service in services if is_below(int(told.read_text()), service))
            services.remove(owner)
            owner.kill()
            services.append(stack.enter_context(start_engine(**options)))
            async with caller(services[0].address) as alice:
                reading = alice.resume(run_id, seen[-1].seq)
                seen += await (taken(reading, seen[-1].seq + 2) if attempt < 4 else taken(reading))
    assert [event.agent_recovered.attempt for event in recovered(seen)] == [2, 3, 4]
    assert numbers(seen) == list(range(1, len(seen) + 1))
    assert terminal(seen).agent_failed.reason == pb.FAILURE_REASON_ENGINE_LOST


def is_below(pid: int, service: Service) -> bool:
    """Tell whether a process is one of an engine's runs."""
    return pid in {child.pid for child in psutil.Process(service.pid).children(recursive=True)}


async def test_what_is_cancelled_does_not_go_on(engines: Engines) -> None:
    """A run whose user has cancelled it ends, though its engine drains before it has."""
    one, other = engines
    async with caller(one.address) as here, caller(other.address) as there:
        run_id, _, _ = await begun(here, "resisting")
        await here.cancel(run_id)
        one.process.terminate()
        await asyncio.to_thread(one.wait)
        rest = await taken(there.resume(run_id, 2), None)
        assert [kind(event) for event in rest] == ["agent_cancelled"]


@pytest.mark.force
async def test_a_rolling_restart(store: Valkey) -> None:
    """Each engine in turn is told to stop: a run that saved once goes on, and its reader elsewhere stays its caller."""
    options = {"agents": AGENTS, "STORE": store.url, "DRAIN_GRACE": "6"}
    with ExitStack() as stack:
        one, two, three = (stack.enter_context(start_engine(**options)) for _ in range(3))
        async with caller(one.address) as here, caller(three.address) as there:
            run_id, busy = str(uuid.uuid4()), here.call("once", parameters={"ticks": 40})
            window, about = Duration(seconds=3), {"ticks": 70, "before": 0.5}
            await taken(here.call("once", run_id=run_id, resume_window=window, parameters=about), 1)
            call = there.resume(run_id, 1)
            one.process.terminate()  # held up by the other run, and this one is yet to save
            seen = await upto(call, "agent_recovered")
            if is_begun(two, run_id):
                two.process.terminate()
            seen += await taken(call, None)
            assert kind((await taken(busy, None))[-1]) == "agent_completed"
    assert numbers(seen) == list(range(2, len(seen) + 2))
    assert [event.agent_recovered.attempt for event in recovered(seen)] == [2, 3][: len(recovered(seen))]
    assert kind(seen[-1]) == "agent_completed", "its caller was there all the time"


def is_begun(service: Service, run_id: str) -> bool:
    return any(each.get("event") == "run started" and each.get("run_id") == run_id for each in service.records)


async def test_no_more_than_there_is_room_for(store: Valkey) -> None:
    """An engine that drains gives away what others have room for, and waits for the rest."""
    options = {"agents": AGENTS, "STORE": store.url}
    with start_engine(DRAIN_GRACE="10", **options) as one, start_engine(MAX_RUNS="2", **options) as other:
        async with caller(one.address) as here, caller(other.address) as there:
            ids = [str(uuid.uuid4()) for _ in range(5)]
            calls = [here.call("once", run_id=run_id, resume_window=LONG) for run_id in ids]
            for call in calls:
                await taken(call, 3)
            one.process.terminate()
            await asyncio.to_thread(one.wait)
            told = [await taken(there.resume(run_id, 0), None) for run_id in ids]
    assert all(kind(events[-1]) == "agent_completed" for events in told)
    assert sum(len(recovered(events)) for events in told) == 2
