"""Two engines and one store: a run is its user's at either of them, and nobody else's."""

import asyncio
import json
import time
import uuid
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import AnswerRequest, ListRunsRequest
from runwire.v1.events_pb2 import Event
from websockets.asyncio.client import ClientConnection

from tests.support.clients import Caller, caller, frames, kind, socket, status, taken, terminal
from tests.support.services import Service, is_gone, until
from tests.support.services import gateway as start_gateway
from tests.support.times import UNIT
from tests.support.valkey import Valkey

Engines = tuple[Service, Service]
DRAINING = "The engine is shutting down. Try again."
LONG = Duration(seconds=60)
StatusCode = grpc.StatusCode


def numbers(events: list[Event]) -> list[int]:
    return [event.seq for event in events]


def pid_in(events: list[Event]) -> int:
    return int(next(event.agent_message.delta for event in events if kind(event) == "agent_message"))


async def begun(alice: Caller, agent: str, **fields: Any) -> tuple[str, list[Event], Any]:
    """Begin a resumable run, and read its first two events."""
    run_id = str(uuid.uuid4())
    call = alice.call(agent, run_id=run_id, resume_window=LONG, **fields)
    return run_id, await taken(call, 2), call


async def test_resumed_at_another(engines: Engines) -> None:
    """A run is read on at another engine, exactly where its reader was, while it goes on and once it is over."""
    async with caller(engines[0].address) as here, caller(engines[1].address) as there:
        run_id, seen, call = await begun(here, "counter", parameters={"times": 3000})
        resumed = await taken(there.resume(run_id, len(seen)), None)
        assert numbers(seen + resumed) == list(range(1, 3003))
        assert kind(resumed[-1]) == "agent_completed"
        assert await status(call) in {StatusCode.ABORTED, StatusCode.OK}
        for after in (0, 1, 1500, 3001, 3002):
            again = await taken(there.resume(run_id, after), None)
            assert numbers(again) == list(range(after + 1, 3003))
        assert await status(there.resume(run_id, 3003)) is StatusCode.OUT_OF_RANGE


async def test_taken_over_from_elsewhere(engines: Engines) -> None:
    """One reader at a time, wherever they are: whoever comes last reads."""
    async with caller(engines[0].address) as here, caller(engines[1].address) as there:
        run_id, seen, call = await begun(here, "ticker")
        for reader in (there, here, there, there):
            before, call = call, reader.resume(run_id, len(seen))
            seen += await taken(call, len(seen) + 2)
            assert await status(before) is StatusCode.ABORTED
        assert numbers(seen) == list(range(1, len(seen) + 1))
        await here.cancel(run_id)
        seen += await taken(call, None)
        assert kind(seen[-1]) == "agent_cancelled"


async def test_another_users_do_not_exist(engines: Engines) -> None:
    """What belongs to another user exists at no engine."""
    async with caller(engines[0].address) as alice, caller(engines[1].address, "bob") as bob:
        run_id, _, _ = await begun(alice, "waiter")
        assert await status(bob.resume(run_id)) is StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError, match="no such run"):
            await bob.cancel(run_id)
        assert not (await bob.stub.ListRuns(ListRunsRequest(), metadata=bob.metadata)).runs
        await alice.cancel(run_id)


async def test_the_same_id_is_taken(engines: Engines) -> None:
    """A run's id is its own at every engine, be it resumable or not."""
    async with caller(engines[0].address) as here, caller(engines[1].address) as there:
        both: tuple[dict[str, Any], ...] = ({"resume_window": LONG}, {})
        for fields in both:
            run_id = str(uuid.uuid4())
            call = here.call("waiter", run_id=run_id, **fields)
            await taken(call, 2)
            assert await status(there.call("waiter", run_id=run_id, **fields)) is StatusCode.ALREADY_EXISTS
            if not fields:
                assert await status(there.resume(run_id)) is StatusCode.NOT_FOUND
            await there.cancel(run_id)
            assert kind((await taken(call, None))[-1]) == "agent_cancelled"


async def test_listed_and_answered_anywhere(engines: Engines) -> None:
    """A run that asks is found at another engine, with its question; answered there, it goes on."""
    async with caller(engines[0].address) as here, caller(engines[1].address) as there:
        call = here.call("orders")
        seen = await taken(call, 2)
        asked = seen[1].input_requested
        [run] = (await there.stub.ListRuns(ListRunsRequest(), metadata=there.metadata)).runs
        assert run.questions[0].request_id == asked.request_id
        content = Struct()
        content.update({"order": "17", "many": 1})
        wrong = AnswerRequest(run_id=run.run_id, request_id=asked.request_id, outcome=pb.INPUT_OUTCOME_ACCEPTED)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await there.stub.Answer(wrong, metadata=there.metadata)
        assert caught.value.code() is StatusCode.INVALID_ARGUMENT
        right = AnswerRequest(
            run_id=run.run_id, request_id=asked.request_id, outcome=pb.INPUT_OUTCOME_ACCEPTED, content=content
        )
        await there.stub.Answer(right, metadata=there.metadata)
        assert kind((await taken(call, None))[-1]) == "agent_completed"


async def test_back_pressure_reaches_another_engine(engines: Engines) -> None:
    """A reader elsewhere who reads nothing stops the agent; one who reads gets all of it, and nothing is missing."""
    async with caller(engines[0].address) as here, caller(engines[1].address) as there:
        run_id, seen, _ = await begun(here, "counter", parameters={"times": 60_000})
        call = there.resume(run_id, len(seen))
        seen += await taken(call, 100)
        [run] = (await there.stub.ListRuns(ListRunsRequest(), metadata=there.metadata)).runs
        assert run.last_seq < 60_000
        seen += await taken(call, None)
        assert numbers(seen) == list(range(1, 60_003))


async def test_an_engine_is_killed(engines: Engines) -> None:
    """Its resumable runs end with ENGINE_LOST, said once, and their processes are gone; others' ids are free again."""
    one, other = engines
    async with caller(one.address) as here, caller(other.address) as there:
        run_id, seen, _ = await begun(here, "pid")
        pid = pid_in(seen)
        reading = there.resume(run_id, len(seen))
        loose = str(uuid.uuid4())
        await taken(here.call("waiter", run_id=loose), 2)
        await asyncio.sleep(0)
        began = time.monotonic()
        one.kill()
        seen += await taken(reading, None)
        took = time.monotonic() - began
        end = terminal(seen).agent_failed
        assert (end.reason, end.retryable) == (pb.FAILURE_REASON_ENGINE_LOST, True)
        assert numbers(seen) == list(range(1, len(seen) + 1))
        assert took < 8 * UNIT, took
        await until(lambda: is_gone(pid))
        again = await taken(there.resume(run_id, 0), None)
        assert again == seen
        [run] = (await there.stub.ListRuns(ListRunsRequest(), metadata=there.metadata)).runs
        assert (run.run_id, run.is_over, run.last_seq) == (run_id, True, len(seen))
        while await status(there.call("echo", run_id=loose)) is StatusCode.ALREADY_EXISTS:  # until its lease is over
            assert time.monotonic() < began + 8 * UNIT


async def test_an_engine_is_stopped(engines: Engines) -> None:
    """What is kept of its runs can be read at another one."""
    one, other = engines
    async with caller(one.address) as here, caller(other.address) as there:
        run_id, seen, call = await begun(here, "counter", parameters={"times": 30})
        seen += await taken(call, None)
        one.stop()
        assert await taken(there.resume(run_id, 0), None) == seen
        assert await taken(there.resume(run_id, len(seen)), None) == []
        assert await status(there.resume(run_id, len(seen) + 1)) is StatusCode.OUT_OF_RANGE


async def test_an_engine_is_stopped_that_reads_elsewhere(engines: Engines) -> None:
    """Whoever reads another engine's run there is sent away, and reads on at another."""
    one, other = engines
    async with caller(other.address) as there:
        run_id, seen, _ = await begun(there, "waiter")
        with start_gateway(one.address) as front:
            async with socket(front.address) as connection:
                await connection.send(
                    json.dumps({"accessToken": "dev:alice", "resume": {"runId": run_id, "afterSeq": len(seen)}})
                )
                await connection.recv()  # a heartbeat: it is attached
                one.process.terminate()
                await frames(connection)
                assert (connection.close_code, connection.close_reason) == (4014, DRAINING)
        await there.cancel(run_id)
        assert kind((await taken(there.resume(run_id, len(seen)), None))[-1]) == "agent_cancelled"


async def test_a_paused_engine_writes_nothing_more(engines: Engines) -> None:
    """One that is paused for longer than its lease finds its runs ended; their processes were dead before."""
    one, other = engines
    async with caller(one.address) as here, caller(other.address) as there:
        run_id, seen, call = await begun(here, "pid")
        pid = pid_in(seen)
        reading = there.resume(run_id, len(seen))
        await anext(aiter(reading))  # a heartbeat: it is attached
        one.pause()
        try:
            rest = await taken(reading, None)
            assert is_gone(pid), "its process outlived its lease"
        finally:
            one.go_on()
        seen += rest
        assert terminal(seen).agent_failed.reason == pb.FAILURE_REASON_ENGINE_LOST
        one.wait_for(lambda record: record["event"] == "run lost")
        assert await taken(here.resume(run_id, 0), None) == seen
        assert await taken(there.resume(run_id, 0), None) == seen
        later, _, call = await begun(here, "waiter")  # it is as good as new
        await there.cancel(later)
        assert kind((await taken(call, None))[-1]) == "agent_cancelled"


@pytest.mark.force
async def test_an_engine_is_busy_for_a_while(engines: Engines) -> None:
    """A reader elsewhere is attached as soon as an engine answers again: nothing is missing, and the agent waits."""
    one, other = engines
    async with caller(one.address) as here, caller(other.address) as there:
        run_id, seen, call = await begun(here, "counter", parameters={"times": 60_000})
        one.pause()
        reading = there.resume(run_id, len(seen))
        seen += (await anext(aiter(reading))).events  # or a heartbeat
        one.go_on()
        assert await status(call) is StatusCode.ABORTED
        seen += await taken(reading, None)
        assert numbers(seen) == list(range(1, 60_003))


async def test_through_a_gateway(engines: Engines) -> None:
    """A gateway asks one engine for a run, its answer and its list, and that is enough."""
    addresses = ",".join(service.address for service in engines)
    with start_gateway(addresses) as front:
        run_id = str(uuid.uuid4())
        async with socket(front.address) as connection:
            run = {"agent": "orders", "runId": run_id, "resumeWindow": "60s"}
            await connection.send(json.dumps({"run": run}))
            seen = await events_upto(connection, 2)
        asked = seen[1]["inputRequested"]["requestId"]
        for _ in range(3):
            [found] = json.loads(await page(front, "/v1/runs"))["runs"]
            assert found["questions"][0]["requestId"] == asked
            async with socket(front.address) as connection:
                await connection.send(json.dumps({"resume": {"runId": run_id}}))
                assert await events_upto(connection, 2) == seen
        answer = {"runId": run_id, "requestId": asked, "content": {"order": "17", "many": 1}}
        async with socket(front.address) as connection:
            await connection.send(json.dumps({"answer": answer | {"outcome": "INPUT_OUTCOME_ACCEPTED"}}))
            [told] = [json.loads(frame)["answers"] for frame in await frames(connection)]
            assert told == [{"requestId": asked}]
        async with socket(front.address) as connection:
            await connection.send(json.dumps({"resume": {"runId": str(uuid.uuid4()), "afterSeq": 3}}))
            assert await frames(connection) == []
            assert (connection.close_code, connection.close_reason) == (4005, "Your run was lost.")
        async with socket(front.address) as connection:
            await connection.send(json.dumps({"resume": {"runId": run_id, "afterSeq": 2}}))
            rest = [event for frame in await frames(connection) for event in json.loads(frame).get("events", [])]
            assert "agentCompleted" in rest[-1]


async def events_upto(connection: ClientConnection, upto: int) -> list[Any]:
    events: list[Any] = []
    while not (events and events[-1]["seq"] >= upto):
        events += json.loads(await connection.recv()).get("events", [])
    return events


async def page(front: Service, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2]


async def test_the_store_is_away(engines: Engines, store: Valkey) -> None:
    """Runs that end with their connections notice nothing; resumable ones go on once it is back: nothing is lost."""
    one, _ = engines
    async with caller(one.address) as alice:
        loose = alice.call("ticker")
        await taken(loose, 2)
        run_id, seen, call = await begun(alice, "ticker")
        store.pause()
        told = asyncio.create_task(taken(loose, 8))
        await told
        await asyncio.to_thread(one.wait_for, lambda record: record["event"] == "the store is away")
        began = time.monotonic()
        await alice.run("echo")
        assert time.monotonic() - began < UNIT, "a run waits for a store that is known to be away"
        refused = alice.call("echo", resume_window=LONG)
        assert await status(refused) is StatusCode.UNAVAILABLE
        assert kind((await taken(alice.call("echo"), None))[-1]) == "agent_completed"
        store.go_on()
        seen += await taken(call, 40)
        assert numbers(seen) == list(range(1, len(seen) + 1))
        await alice.cancel(run_id)
