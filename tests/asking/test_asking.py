"""Agents ask their users, through every door, and as processes and tasks."""

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

import grpc.aio
import psutil
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import ListAgentsRequest, ListRunsRequest

from engine_service import Agent, RunContext, testing
from tests.support.clients import caller, frames, kind, kinds, opening, socket, taken, terminal
from tests.support.doors import DOORS, Visit, visit
from tests.support.services import Service, engine, gateway
from tests.support.times import UNIT

OK, INVALID, NOT_FOUND, LATE, ABORTED = 0, 3, 5, 9, 10
MINUTE = Duration(seconds=60)
AGENTS = "tests.agents.asking"


def struct(**fields: Any) -> Struct:
    made = Struct()
    made.update(fields)
    return made


@pytest.fixture(scope="module", params=["process", "task"])
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def services(isolation: str) -> Iterator[tuple[Service, Service]]:
    with engine(agents=AGENTS, ISOLATION=isolation, MAX_RUNS_PER_USER="64") as back, gateway(back.address) as front:
        assert front.address
        yield back, front


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_question(services: tuple[Service, Service], door: str) -> None:
    """What is asked is told with its schema; what is answered reaches the agent, and all who read."""
    async with visit(door, *services, "orders") as seen:
        [asked] = await seen.wait_for("input_requested")
        request = asked.input_requested
        assert (request.message, request.reason) == ("Which order?", pb.INPUT_REASON_QUESTION)
        assert MessageToDict(request.schema)["required"] == ["order", "many"]
        left = request.expires_at.ToNanoseconds() - asked.time.ToNanoseconds()
        assert left == pytest.approx(600e9, rel=0.01)
        assert await seen.answer(request.request_id, content={"order": "17", "many": 2}) == (OK, {})
        assert (await seen.end()).agent_completed.output == "ordered"
        assert seen.data == {"outcome": "accepted", "content": {"order": "17", "many": 2}}
        [answered] = await seen.wait_for("input_answered")
        assert answered.input_answered.answered_by == "alice"
        assert answered.input_answered.outcome == pb.INPUT_OUTCOME_ACCEPTED
        assert MessageToDict(answered.input_answered.content) == {"order": "17", "many": 2}
        terminal(seen.events)


async def test_declined(services: tuple[Service, Service], door: str) -> None:
    """A no is an answer, too."""
    async with visit(door, *services, "orders") as seen:
        [request_id] = await seen.asked()
        assert await seen.answer(request_id, "declined", {"order": "17"}) == (INVALID, {"content": ANY})
        assert await seen.answer(request_id, "declined") == (OK, {})
        await seen.end()
        assert seen.data == {"outcome": "declined", "content": {}}


async def test_expired(services: tuple[Service, Service], door: str) -> None:
    """A question that nobody answers expires, which is no refusal; then it is too late."""
    parameters = struct(timeout=0.2)
    async with visit(door, *services, "asker", parameters=parameters, resume_window=MINUTE) as seen:
        [request_id] = await seen.asked()
        await seen.end()
        assert seen.data == {"0": {"outcome": "expired", "content": {}}}
        [answered] = await seen.wait_for("input_answered")
        assert (answered.input_answered.outcome, answered.input_answered.answered_by) == (pb.INPUT_OUTCOME_EXPIRED, "")
        assert (await elsewhere(door, services, seen, request_id)).code == LATE


async def elsewhere(door: str, services: tuple[Service, Service], seen: Visit, request_id: str, **said: Any) -> Any:
    """Answer on another connection of the same user's, which joins nothing."""
    async with visit(door, *services, "orders") as another:
        return await another.answer(request_id, run_id=seen.run_id, **said)


async def test_said_twice(services: tuple[Service, Service], door: str) -> None:
    """The same answer is taken twice; another one isn't, and changes nothing."""
    parameters = struct(questions=2)
    async with visit(door, *services, "asker", parameters=parameters) as seen:
        first, second = await seen.asked(2)
        assert await seen.answer(first, content={"a": 1}) == (OK, {})
        assert await seen.answer(first, content={"a": 1}) == (OK, {})
        assert (await seen.answer(first, content={"a": 2})).code == ABORTED
        assert (await seen.answer(first, "declined")).code == ABORTED
        assert await seen.answer(second) == (OK, {})
        await seen.end()
        assert {name: each["content"] for name, each in seen.data.items()} == {"0": {"a": 1}, "1": {}}


async def test_answered_wrongly(services: tuple[Service, Service], door: str) -> None:
    """What the schema doesn't want is refused, field by field, and the question stays open."""
    async with visit(door, *services, "orders") as seen:
        [request_id] = await seen.asked()
        code, wrong = await seen.answer(request_id, content={"order": "1", "many": 1.5, "more": True})
        assert (code, set(wrong)) == (INVALID, {"order", "many", "more"})
        assert (await seen.answer(request_id)).violations == {"order": ANY, "many": ANY}
        assert await seen.answer(request_id, "neither") == (INVALID, {"outcome": ANY})
        assert await seen.answer(request_id, content={"order": "17", "many": 1}) == (OK, {})
        assert kind(await seen.end()) == "agent_completed"


class Anything:
    def __eq__(self, _: object) -> bool:
        return True

    __hash__ = object.__hash__


ANY: Any = Anything()


async def test_another_user(services: tuple[Service, Service], door: str) -> None:
    """What is asked of one is asked of nobody else, and what was never asked doesn't exist."""
    async with visit(door, *services, "orders") as seen:
        [request_id] = await seen.asked()
        right = {"order": "17", "many": 1}
        assert (await seen.answer(request_id, content=right, user="bob")).code == NOT_FOUND
        assert (await seen.answer("nonsense", content=right)).code == NOT_FOUND
        assert (await seen.answer(request_id, content=right)).code == OK
        assert kind(await seen.end()) == "agent_completed"


async def test_ten_in_any_order(services: tuple[Service, Service], door: str) -> None:
    """Each of many questions is answered alone."""
    async with visit(door, *services, "asker", parameters=struct(questions=10)) as seen:
        asked = list(enumerate(await seen.asked(10)))
        random.Random(7).shuffle(asked)
        verdicts = await asyncio.gather(*(seen.answer(each, content={"number": number}) for number, each in asked))
        assert {verdict.code for verdict in verdicts} == {OK}
        await seen.end()
        assert {name: each["content"]["number"] for name, each in seen.data.items()} == {
            str(number): number for number in range(10)
        }
        assert kinds(seen.events).count("input_answered") == 10


async def test_as_many_as_may_be_open(services: tuple[Service, Service]) -> None:
    """The sixty-fifth question waits for one of the others."""
    async with visit("grpc", *services, "asker", parameters=struct(questions=66)) as seen:
        asked = await seen.asked(64)
        await asyncio.sleep(0.2)  # nothing says that nothing more comes
        assert len(await seen.asked(64)) == 64
        await asyncio.gather(*(seen.answer(each) for each in asked))
        await asyncio.gather(*(seen.answer(each) for each in (await seen.asked(66))[64:]))
        assert kind(await seen.end()) == "agent_completed"


async def test_inside_two_delegations(services: tuple[Service, Service], door: str) -> None:
    """Whoever asks, at whatever depth, is answered."""
    async with visit(door, *services, "above") as seen:
        [asked] = await seen.wait_for("input_requested")
        assert asked.agent == "above/between/orders"
        await seen.answer(asked.input_requested.request_id, content={"order": "17", "many": 1})
        assert (await seen.end()).agent_completed.output == "ordered"
        terminal(seen.events)


async def test_an_approval(services: tuple[Service, Service], door: str) -> None:
    """A tool is called as it was approved of, once for each time; content is no part of that."""
    async with visit(door, *services, "payer", parameters=struct(times=2)) as seen:
        [first] = await seen.wait_for("input_requested")
        request = first.input_requested
        assert (request.reason, request.tool) == (pb.INPUT_REASON_TOOL_APPROVAL, "pay")
        assert MessageToDict(request.proposed) == {"amount": 40, "to": "alice"}
        assert not request.HasField("schema")
        assert await seen.answer(request.request_id, content={"amount": 1}) == (INVALID, {"content": ANY})
        assert "tool_executing" not in kinds(seen.events)
        assert await seen.answer(request.request_id) == (OK, {})
        [called] = await seen.wait_for("tool_executing")
        assert called.tool_executing.call_id == request.call_id
        assert called.tool_executing.arguments == request.proposed
        _, second = await seen.wait_for("input_requested", 2)
        assert second.input_requested.request_id != request.request_id
        assert await seen.answer(request.request_id) == (OK, {})  # and serves no other call
        assert await seen.answer(second.input_requested.request_id, "declined") == (OK, {})
        await seen.end()
        assert seen.data == {"paid": ["40 to alice", "The user did not approve of pay."]}
        assert kinds(seen.events).count("tool_executing") == 1


async def test_an_agent_that_gives_up(services: tuple[Service, Service]) -> None:
    """A question that its agent waits for no longer has expired, and is told so once."""
    async with visit("grpc", *services, "impatient", resume_window=MINUTE) as seen:
        [request_id] = await seen.asked()
        assert (await seen.end()).agent_completed.output == "done"
        assert kinds(seen.events).count("input_answered") == 1
        assert (await seen.answer(request_id)).code == LATE


async def test_cancelled_while_asking(services: tuple[Service, Service], door: str) -> None:
    """A run that waits for its user is cancelled as any other."""
    async with visit(door, *services, "asker") as seen:
        await seen.asked()
        await seen.cancel()
        assert kind(await seen.end()) == "agent_cancelled"
        assert kinds(seen.events) == ["agent_started", "input_requested", "agent_cancelled"]


async def test_a_tool_that_asks(services: tuple[Service, Service]) -> None:
    """The question says in which call it was asked."""
    async with visit("grpc", *services, "tooled", "inside") as seen:
        [asked] = await seen.wait_for("input_requested")
        [called] = await seen.wait_for("tool_executing")
        assert asked.input_requested.call_id == called.tool_executing.call_id
        await seen.answer(asked.input_requested.request_id)
        await seen.end()
        assert seen.data == {"outcome": "accepted", "content": {}}


async def test_runs_are_listed(services: tuple[Service, Service]) -> None:
    """One's own runs, with what they ask, and nobody else's; those that are over while they can be read."""
    back, _ = services
    async with visit("grpc", *services, "orders", user="carol", thread_id="t", resume_window=MINUTE) as seen:
        [request_id] = await seen.asked()
        async with caller(back.address, "carol") as carol, caller(back.address, "dave") as dave:
            [run] = (await carol.stub.ListRuns(ListRunsRequest(), metadata=carol.metadata)).runs
            assert (run.run_id, run.agent, run.thread_id, run.is_over) == (seen.run_id, "orders", "t", False)
            assert [question.request_id for question in run.questions] == [request_id]
            assert run.last_seq == 2
            assert abs(run.started.ToNanoseconds() / 1e9 - time.time()) < 60
            assert not (await dave.stub.ListRuns(ListRunsRequest(), metadata=dave.metadata)).runs
            await seen.answer(request_id, content={"order": "17", "many": 1})
            await seen.end()

            back.wait_for(lambda record: record["event"] == "run ended" and record["run_id"] == seen.run_id)
            [over] = (await carol.stub.ListRuns(ListRunsRequest(), metadata=carol.metadata)).runs
            assert (over.last_seq, list(over.questions)) == (len(seen.events), [])


async def test_answered_while_the_caller_is_away(services: tuple[Service, Service], door: str) -> None:
    """With a window, a question survives a lost connection, and is answered from elsewhere."""
    async with visit(door, *services, "orders", resume_window=MINUTE) as seen:
        [request_id] = await seen.asked()
    assert (await elsewhere(door, services, seen, request_id, content={"order": "17", "many": 1})).code == OK
    async with caller(services[0].address) as alice:
        events = await taken(alice.resume(seen.run_id))
    assert terminal(events).agent_completed.output == "ordered"


async def test_a_gateway_that_is_killed(services: tuple[Service, Service]) -> None:
    """What was asked before it died is answered through the next."""
    back, _ = services
    with gateway(back.address) as dying:
        async with visit("runwire.v1.json", back, dying, "orders", resume_window=MINUTE) as seen:
            [request_id] = await seen.asked()
            dying.kill()
            await seen.end()
    with gateway(back.address) as after:
        assert after.address
        found = await elsewhere("runwire.v1.json", (back, after), seen, request_id, content={"order": "1x", "many": 1})
        assert found.code == OK
    async with caller(back.address) as alice:
        assert terminal(await taken(alice.resume(seen.run_id))).agent_completed.output == "ordered"


async def test_changed_meanwhile(services: tuple[Service, Service]) -> None:
    """What is called is what was approved of, whatever became of it meanwhile."""
    async with visit("grpc", *services, "changing") as seen:
        [asked] = await seen.wait_for("input_requested")
        await seen.answer(asked.input_requested.request_id)
        assert kind(await seen.end()) == "agent_completed"
        [called] = await seen.wait_for("tool_executing")
        assert MessageToDict(called.tool_executing.arguments) == {"amount": 40, "to": ["alice"]}
        [completed] = await seen.wait_for("tool_completed")
        assert completed.tool_completed.result.string_value == "40 to ['alice']"


async def test_what_nobody_can_read(services: tuple[Service, Service]) -> None:
    """What can't be shown as it is can't be approved of."""
    async with visit("grpc", *services, "opaque") as seen:
        assert kind(await seen.end()) == "agent_failed"
        assert kinds(seen.events) == ["agent_started", "agent_failed"]


async def test_twins(services: tuple[Service, Service]) -> None:
    """Two sub-agents of one name ask for themselves: the end of one leaves the other's question open."""
    async with visit("grpc", *services, "twins") as seen:
        first, second = await seen.asked(2)
        assert (await seen.answer(first)).code == OK
        await seen.wait_for("agent_completed")
        assert (await seen.answer(second, "declined")).code == OK
        await seen.end()
        assert sorted(seen.data.values()) == ["accepted", "declined"]


async def test_an_answer_that_is_wrong_in_many_ways(services: tuple[Service, Service], door: str) -> None:
    """However much is wrong, it is said that it is, and of some of it why."""
    async with visit(door, *services, "orders") as seen:
        [request_id] = await seen.asked()
        code, wrong = await seen.answer(request_id, content={f"{number:04}" * 20: 1 for number in range(400)})
        assert (code, len(wrong)) == (INVALID, 16)
        assert (await seen.answer(request_id, content={"order": "17", "many": 1})).code == OK


@pytest.mark.parametrize("about", [{"maximum": 2**63 - 1}, {"minimum": float("-inf")}, {"enum": [1, 2**60 + 1]}])
async def test_a_form_that_does_not_travel(about: dict[str, Any]) -> None:
    """What would be another form where it arrives is the agent's mistake, and told so."""

    class Odd(Agent):
        """Asks for what no JSON can say."""

        async def run(self, context: RunContext, input: str) -> str:
            await context.ask("How many?", schema={"it": {"type": "integer", **about}})
            return "asked"

    ran = await testing.run(Odd)
    assert ran.end.agent_failed.reason == pb.FAILURE_REASON_AGENT_ERROR
    assert "input_requested" not in ran.kinds


async def test_in_the_order_in_which_it_was_said(services: tuple[Service, Service]) -> None:
    """What is said first on a socket counts first, however long it takes to read."""
    async with visit("runwire.v1.json", *services, "asker", parameters=struct(questions=2)) as seen:
        request_id, _ = await seen.asked(2)  # the other one keeps the run
        long = {f"field {number}": number for number in range(1500)}
        first = asyncio.create_task(seen.answer(request_id, content=long))
        await asyncio.sleep(0)
        second = asyncio.create_task(seen.answer(request_id, "declined"))
        assert [each.code for each in await asyncio.gather(first, second)] == [OK, ABORTED]


async def test_a_socket_that_says_too_much(services: tuple[Service, Service]) -> None:
    """As many frames wait as may, and then the socket is closed."""
    async with socket(services[1].address) as flooding:
        await flooding.send(opening("runwire.v1.json", "asker"))
        await flooding.recv()
        services[0].pause()  # or it answers as fast as this machine lets us ask
        try:
            for _ in range(100):
                await flooding.send('{"answer": {"requestId": "x", "content": {"y": "' + "z" * 10_000 + '"}}}')
            await frames(flooding)
        finally:
            services[0].go_on()
        assert flooding.close_code == 4008


async def test_who_floods_the_engine_keeps_nobody_waiting(services: tuple[Service, Service], isolation: str) -> None:
    """What a process has to say to the engine alone is not all that this listens to."""
    async with visit("grpc", *services, "chatty") as seen, caller(services[0].address) as bob:
        await seen.wait_for("agent_message")
        for _ in range(5):
            begun = time.monotonic()
            await bob.stub.ListAgents(ListAgentsRequest(), metadata=bob.metadata)
            assert time.monotonic() - begun < (0.5 if isolation == "process" else 3)
        assert kind(await seen.end()) == "agent_completed"


async def test_an_agent_that_dies() -> None:
    """The run ends, and with it the question."""
    with engine(agents=AGENTS) as back, gateway(back.address) as front:
        async with visit("grpc", back, front, "dying", resume_window=MINUTE) as seen:
            [request_id] = await seen.asked()
            assert (await seen.end()).agent_failed.reason == pb.FAILURE_REASON_CRASHED
            assert (await seen.answer(request_id)).code == LATE


async def test_an_agent_that_computes() -> None:
    """Neither an answer nor its expiry waits for an agent that computes."""
    with engine(agents=AGENTS) as back, gateway(back.address) as front:
        async with visit("grpc", back, front, "occupied") as seen:
            [request_id] = await seen.asked()
            begun = time.monotonic()
            assert await seen.answer(request_id, content={"a": 1}) == (OK, {})
            assert time.monotonic() - begun < 1
            await seen.end()
            assert seen.data == {"outcome": "accepted", "content": {"a": 1}}
        async with visit("grpc", back, front, "occupied", parameters=struct(timeout=0.2)) as seen:
            [request_id] = await seen.asked()
            back.wait_for(lambda record: record["event"] == "question settled" and record["outcome"] == "expired", 1.5)
            assert (await seen.answer(request_id)).code == LATE


async def test_draining_while_asking() -> None:
    """An open question has the grace that its run has, and may be answered in it."""
    with engine(agents=AGENTS, DRAIN_GRACE="3") as back, gateway(back.address) as front:
        async with visit("grpc", back, front, "orders") as seen, visit("grpc", back, front, "asker") as other:
            [request_id] = await seen.asked()
            await other.asked()
            back.process.terminate()
            back.wait_for(lambda record: record["event"] == "draining")
            assert (await seen.answer(request_id, content={"order": "17", "many": 1})).code == OK
            assert kind(await seen.end()) == "agent_completed"
            assert (await other.end()).agent_failed.reason == pb.FAILURE_REASON_ENGINE_DRAINING


@pytest.mark.parametrize("isolation", ["process", "task"])
async def test_time_stands_still(isolation: str) -> None:
    """A run may wait for its user for longer than it may take; but not for as long as it likes, nor work meanwhile."""
    with engine(agents=AGENTS, ISOLATION=isolation, RUN_TIMEOUT="1") as back, gateway(back.address) as front:
        async with visit("grpc", back, front, "sleeper", "0.2") as seen:
            [request_id] = await seen.asked()
            await asyncio.sleep(2)
            await seen.answer(request_id)
            assert (await seen.end()).agent_completed.output == "slept"
        async with visit("grpc", back, front, "sleeper", "60") as seen:
            [request_id] = await seen.asked()
            await asyncio.sleep(1.5)
            begun = time.monotonic()
            await seen.answer(request_id)
            assert (await seen.end()).agent_failed.reason == pb.FAILURE_REASON_TIMEOUT
            assert 0.3 < time.monotonic() - begun < 3
        async with visit("grpc", back, front, "tooled", "beside") as seen:  # a tool goes on meanwhile
            await seen.asked()
            assert (await seen.end()).agent_failed.reason == pb.FAILURE_REASON_TIMEOUT
        async with visit("grpc", back, front, "tooled", "inside") as seen:
            [request_id] = await seen.asked()
            await asyncio.sleep(2)
            await seen.answer(request_id)
            assert kind(await seen.end()) == "agent_completed"


async def test_time_goes_on_beside_a_tool_of_the_same_id() -> None:
    """Two agents' calls may have the same id, which their models chose: time stands still for neither's sake."""
    with engine(agents=AGENTS, RUN_TIMEOUT="1") as back, gateway(back.address) as front:
        async with visit("grpc", back, front, "colliding") as seen:
            await seen.asked()
            assert (await seen.end()).agent_failed.reason == pb.FAILURE_REASON_TIMEOUT


async def test_a_callers_deadline_goes_on() -> None:
    """Who waits for an answer may still be called by somebody without the time for that."""
    with engine(agents=AGENTS) as back:
        async with caller(back.address) as alice:
            events = await taken(alice.call("orders", timeout=3 * UNIT))
            assert terminal(events).agent_failed.reason == pb.FAILURE_REASON_TIMEOUT


async def test_waiting_costs_nothing() -> None:
    """A process that waits for an answer takes no processor."""
    with engine(agents=AGENTS) as back, gateway(back.address) as front:
        async with visit("grpc", back, front, "orders") as seen:
            [request_id] = await seen.asked()
            [zygote] = [each for each in psutil.Process(back.pid).children() if each.children()]
            before = {each.pid: each.cpu_times() for each in zygote.children()}
            await asyncio.sleep(1)
            for each in zygote.children():
                if each.pid in before:
                    assert each.cpu_times().user - before[each.pid].user <= 0.01
            await seen.answer(request_id, content={"order": "17", "many": 1})
            assert kind(await seen.end()) == "agent_completed"


async def test_not_signed_in() -> None:
    """Who is nobody answers nothing, and sees nothing."""
    with engine(agents=AGENTS) as back:
        async with caller(back.address) as alice:
            nobody = (("authorization", "Bearer nonsense"),)
            call = alice.stub.ListRuns(ListRunsRequest(), metadata=nobody)
            with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
                await call
