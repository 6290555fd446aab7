"""What stops a boot, and what is counted over all engines."""

import asyncio
import time
import uuid
from contextlib import ExitStack
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from runwire.v1.engine_pb2 import RunInfo

from engine_service.stores.memory import MemoryJournals
from engine_service.stores.valkey.store import ValkeyStore
from tests.support.clients import Caller, caller, kind, status, taken
from tests.support.services import Service
from tests.support.services import engine as start_engine
from tests.support.times import UNIT
from tests.support.valkey import Owner, Valkey, valkey


def line(store: str) -> str:
    """Return why an engine does not boot with a store."""
    with start_engine(STORE=store) as service:
        assert service.wait() == 2
        return service.lines[-1]


def test_a_store_that_is_not_there() -> None:
    """A store that cannot be reached, or is none, stops the boot with a line that says so, and no password."""
    assert "the store cannot be reached" in line("valkey://:secret@127.0.0.1:1/0")
    assert "secret" not in line("valkey://:secret@127.0.0.1:1/0")
    assert "STORE begins with one of valkey://" in line("postgres://:secret@127.0.0.1:1/0")


def test_a_store_that_drops_what_runs_depend_on() -> None:
    """A store that evicts stops the boot."""
    with valkey("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as server:
        assert "its maxmemory-policy is allkeys-lru" in line(server.url)


def test_a_store_that_lets_nobody_in(store: Valkey) -> None:
    """One that wants a password gets it, or stops the boot."""
    store.client().config_set("requirepass", "secret")
    assert "the store does not let us in" in line(store.url)
    with start_engine(STORE=store.url.replace("//", "//:secret@")) as service:
        assert service.address


def test_another_version(store: Valkey) -> None:
    """What another version has written is not misread: its engines need a prefix of their own."""
    store.client().set("runwire:format", "1")
    assert "what is there is of format 1, and this engine's is 3" in line(store.url)
    with start_engine(STORE=f"{store.url}?prefix=new") as service:
        assert service.address


async def settled(callers: list[Caller], user_runs: int) -> tuple[list[Any], int]:
    """Begin as many runs as one may, and some more, at all engines at once; return them, and how many were refused."""

    async def begin(one: Caller) -> Any:
        call = one.call("task_waiter")
        try:
            await taken(call, 2)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
            return None
        return call

    begun = await asyncio.gather(*(begin(callers[number % len(callers)]) for number in range(user_runs + 6)))
    calls = [call for call in begun if call]
    return calls, len(begun) - len(calls)


@pytest.mark.force
async def test_limits_count_together(store: Valkey) -> None:
    """20 users at once over three engines have their 8 runs each, no more; and no less because an engine died."""
    options = {"STORE": store.url, "MAX_RUNS": "1000", "RUNS_PER_MINUTE": "100000"}
    with ExitStack() as stack:
        services = [stack.enter_context(start_engine(agents="tests.agents.tasks", **options)) for _ in range(3)]
        addresses = [service.address for service in services]

        async def of(user: str) -> tuple[int, int]:
            async with (
                caller(addresses[0], user) as a,
                caller(addresses[1], user) as b,
                caller(addresses[2], user) as c,
            ):
                calls, refused = await settled([a, b, c], 8)
                return len(calls), refused

        assert await asyncio.gather(*(of(f"user{number}") for number in range(20))) == [(8, 6)] * 20
        async with caller(addresses[0]) as doomed, caller(addresses[1]) as alice, caller(addresses[2]) as again:
            calls, _ = await settled([doomed], 2)
            assert len(calls) == 8
            assert (await settled([alice, again], 8))[1] == 14
            began = time.monotonic()
            services[0].kill()
            calls = []
            while len(calls) < 8:  # as its lease ends
                calls += (await settled([alice, again], 0))[0]
                assert time.monotonic() - began < 8 * UNIT, len(calls)
            assert (await settled([alice, again], 0))[1] == 6


async def test_rates_count_together(store: Valkey) -> None:
    """A user asks so often in a minute, wherever they ask."""
    options = {"STORE": store.url, "RUNS_PER_MINUTE": "5"}
    with start_engine(**options) as one, start_engine(**options) as other:
        async with caller(one.address) as here, caller(other.address) as there, caller(one.address, "bob") as bob:
            for number in range(5):
                assert kind((await (here, there)[number % 2].run("echo"))[-1]) == "agent_completed"
            for user in (here, there):
                with pytest.raises(grpc.aio.AioRpcError, match="as many runs as one may in a minute"):
                    await user.run("echo")
            assert kind((await bob.run("echo"))[-1]) == "agent_completed"


async def test_while_the_store_is_away(store: Valkey) -> None:
    """Each engine counts for itself while there is nobody to ask."""
    with start_engine(STORE=store.url, RUNS_PER_MINUTE="3") as service:
        async with caller(service.address) as alice:
            await alice.run("echo")
            store.kill()
            for _ in range(3):
                await alice.run("echo")
            with pytest.raises(grpc.aio.AioRpcError, match="as many runs as one may in a minute"):
                await alice.run("echo")


async def test_a_store_that_comes_back_empty(engines: tuple[Service, Service], store: Valkey) -> None:
    """A run whose journal has vanished is lost, and says so: nothing is made up."""
    one, other = engines
    async with caller(one.address) as here, caller(other.address) as there:
        run_id = str(uuid.uuid4())
        call = here.call("ticker", run_id=run_id, resume_window=Duration(seconds=60))
        await taken(call, 3)
        store.client().flushall()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await taken(call, None)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        one.wait_for(lambda record: record["event"] == "run lost")
        for user in (here, there):
            while (said := await status(user.resume(run_id, 3))) is grpc.StatusCode.UNAVAILABLE:
                pass  # its process is on its way out
            assert said is grpc.StatusCode.NOT_FOUND
        assert kind((await there.run("echo"))[-1]) == "agent_completed"


async def test_many_begin_at_once(store: Valkey) -> None:
    """However many runs begin at once: they wait for the store's connections, and none is refused for that."""
    shared = ValkeyStore(store.url, MemoryJournals(1, 1, 1), {}, max_runs_per_user=8, longest=60)
    await shared.begin(Owner())  # type: ignore[arg-type]
    infos = [RunInfo(run_id=str(uuid.uuid4())) for _ in range(110)]
    leaving = await asyncio.gather(*(shared.place(info.run_id, info, 60.0) for info in infos))
    assert len(leaving) == 110
    await shared.close()


async def test_a_store_that_is_full_for_a_while(store: Valkey) -> None:
    """What it refuses meanwhile is written later: the run is not taken for another engine's."""
    with start_engine(STORE=store.url) as service, store.client() as client:
        async with caller(service.address) as alice:
            call = alice.call("ticker", run_id=str(uuid.uuid4()), resume_window=Duration(seconds=60))
            seen = await taken(call, 3)
            client.config_set("maxmemory", "1")
            await asyncio.to_thread(service.wait_for, lambda record: record["event"] == "the store is away")
            client.config_set("maxmemory", "0")
            seen += await taken(call, None)
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert kind(seen[-1]) == "agent_completed"
