"""Law 5, by force: callers who come in numbers, and say nothing, read nothing, or leave much behind."""

import asyncio
import socket as sockets
import ssl
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.support.certificates import Authority
from tests.support.clients import PROTO, caller, events_of, frames, opening, said, socket, status, terminal
from tests.support.services import Service, engine, gateway, http_status, until
from tests.support.times import UNIT

pytestmark = [pytest.mark.measures, pytest.mark.force]


async def flooded(service: Service, user: str, many: int, **fields: Any) -> list[Any]:
    """Begin runs that say much, and read nothing more of them."""
    calls = []
    async with asyncio.timeout(30 * UNIT):
        for _ in range(many):
            stack = caller(service.address, user)
            somebody = await stack.__aenter__()
            call = somebody.call("flood", **fields)
            await said(call)
            calls.append((stack, call))
    return calls


async def left(calls: list[Any]) -> None:
    for stack, call in calls:
        call.cancel()
        await stack.__aexit__(None, None, None)


@pytest.mark.parametrize("settings", [{"RUN_TIMEOUT": "1"}, {"STALL_TIMEOUT": "1"}])
async def test_callers_who_stop_reading(settings: dict[str, str]) -> None:
    """They lose their places: when their run has taken its time, or when they have read nothing for theirs."""
    with engine(MAX_RUNS="8", **settings) as back:
        calls = await flooded(back, "mallory", 8)
        async with caller(back.address) as alice:
            assert await status(alice.call("echo")) is grpc.StatusCode.RESOURCE_EXHAUSTED
            async with asyncio.timeout(30 * UNIT):  # a message of 64 KiB may take a slow reader 16 s
                while await status(alice.call("echo")) is not grpc.StatusCode.OK:
                    pass
        async with caller(back.address, "mallory") as mallory:  # what gRPC still keeps of them is their own loss
            await until(lambda: sum("reads nothing" in record["event"] for record in back.records) == 8, 20)
            assert await status(mallory.call("echo")) is grpc.StatusCode.RESOURCE_EXHAUSTED
            await left(calls)
            async with asyncio.timeout(10 * UNIT):
                while await status(mallory.call("echo")) is not grpc.StatusCode.OK:
                    pass


async def test_finished_runs_that_are_read_by_nobody() -> None:
    """Of one user, 100 runs that are over can be read, also when somebody is attached to more and reads nothing."""
    with engine(MAX_RUNS_PER_USER="20") as back:
        async with caller(back.address) as alice:
            held = []
            for _ in range(120):
                call = alice.call("echo", "x" * 40_000, resume_window={"seconds": 600})
                await call.initial_metadata()
                held.append(call)
                await until(lambda: sum(record["event"] == "run ended" for record in back.records) == len(held))
            codes = [await status(call) for call in held]
            gone = [code for code in codes if code is grpc.StatusCode.OUT_OF_RANGE]
            assert len(gone) >= 20, codes


def descriptors(service: Service) -> int:
    return psutil.Process(service.pid).num_fds()


@asynccontextmanager
async def strangers(port: int, many: int) -> AsyncGenerator[None]:
    """Be connected so many times, and say nothing."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        for _ in range(many):
            silent = stack.enter_context(sockets.socket())
            silent.setblocking(False)
            await loop.sock_connect(silent, ("127.0.0.1", port))
        yield


async def works(front: Service, **options: Any) -> float:
    """Check that a run is right, and return how long it took."""
    started = time.monotonic()
    async with asyncio.timeout(5 * UNIT), socket(front.address, PROTO, **options) as connection:
        await connection.send(opening(PROTO, "echo", "hi"))
        assert terminal(events_of(await frames(connection))).agent_completed.output == "hi"
    return time.monotonic() - started


async def test_connections_that_say_nothing() -> None:
    """Of one address there are 256 at most; an honest user beside them is served."""
    with engine() as back, gateway(back.address, MAX_CONNECTIONS="10", OPEN_TIMEOUT="60") as front:
        await works(front)
        before = descriptors(front)
        async with strangers(front.port, 3000):
            await until(lambda: descriptors(front) - before <= 280)
            print(f"with 3,000 silent connections: {descriptors(front) - before} descriptors more")
            await works(front)
        await until(lambda: descriptors(front) <= before + 2)


async def test_connections_that_do_not_even_begin_their_handshake(tmp_path: Path) -> None:
    """The same holds where there is TLS, before anything of it was said."""
    authority = Authority(tmp_path, "ours")
    ours = authority.issue("gateway")
    tls = {"TLS_CERT": str(ours.certificate), "TLS_KEY": str(ours.key)}
    with engine() as back, gateway(back.address, OPEN_TIMEOUT="60", **tls) as front:
        before = descriptors(front)
        trusting = ssl.create_default_context(cafile=str(authority.file))
        async with strangers(front.port, 1000):
            await until(lambda: descriptors(front) - before <= 280)
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port, ssl=trusting)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" in await reader.readline()
            writer.close()


async def test_proxies_speak_for_many() -> None:
    """Connections of a proxy that is trusted are not counted as one address's."""
    with gateway("127.0.0.1:1", TRUSTED_PROXIES="127.0.0.1", OPEN_TIMEOUT="60") as front:
        before = descriptors(front)
        async with strangers(front.port, 600):
            await until(lambda: descriptors(front) - before >= 600)


async def test_no_descriptors_left() -> None:
    """Near the limit nobody is let in, that is said once, and who is there is served; then it goes on."""
    with gateway("127.0.0.1:1", TRUSTED_PROXIES="127.0.0.1", OPEN_TIMEOUT="8") as front:
        assert front.address
        psutil.Process(front.pid).rlimit(psutil.RLIMIT_NOFILE, (300, 300))
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        async with strangers(front.port, 290):  # the last of them wait for the kernel
            front.wait_for(lambda record: "no descriptors left" in record["event"])
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200" in await asyncio.wait_for(reader.readline(), 3 * UNIT)
            writer.close()
        assert len(front.records) < 10, front.records
        async with asyncio.timeout(20 * UNIT):
            while not await _answers(front):
                pass


async def _answers(front: Service) -> bool:
    try:
        async with asyncio.timeout(2 * UNIT):
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            line = await reader.readline()
            writer.close()
            return b"200" in line
    except (TimeoutError, OSError):
        return False


async def test_what_absent_users_left_behind() -> None:
    """Finished runs of those who left make room for those who come, the biggest holder's first."""
    small = {"RESUME_BUFFER": "1MiB", "RESUME_MEMORY": "4MiB", "MAX_RUNS_PER_USER": "2"}
    with engine(**small) as back:
        users = [f"user{number}" for number in range(10)]
        begun = []
        for user in ["user3", *users]:  # who so has two of them
            begun.append(await _leave_behind(back, user))
            await until(lambda: sum(record["event"] == "run ended" for record in back.records) == len(begun))
        async with caller(back.address, "user3") as biggest:
            assert await status(biggest.resume(begun[0])) is grpc.StatusCode.NOT_FOUND
        async with caller(back.address, "user9") as newest:
            assert await status(newest.resume(begun[-1])) is grpc.StatusCode.OK


async def _leave_behind(back: Service, user: str) -> str:
    """Begin a run of 600 KB that goes on alone, leave, and return its id."""
    async with caller(back.address, user) as absent:
        run_id = str(uuid.uuid4())
        call = absent.call("echo", "x" * 200_000, run_id=run_id, resume_window={"seconds": 3600})
        await call.initial_metadata()
        call.cancel()
        return run_id


async def test_watchers_of_the_health_service() -> None:
    """3,000 of one address: most are refused, memory stays, and who asks is answered."""
    with engine() as back:
        await _watch(back, 100)
        before = psutil.Process(back.pid).memory_info().rss
        refused = await _watch(back, 3000)
        grown = psutil.Process(back.pid).memory_info().rss - before
    print(f"3,000 watchers: {refused} refused, grown by {grown / 1e6:.1f} MB")
    assert refused >= 2900
    assert grown < 30e6


async def _watch(back: Service, many: int) -> int:
    """Watch so many times at once, and return how often that was refused."""
    channels = [grpc.aio.insecure_channel(back.address, (("channel", number),)) for number in range(10)]
    stubs: list[Any] = [HealthStub(channel) for channel in channels]
    calls = [stubs[number % 10].Watch(HealthCheckRequest()) for number in range(many)]
    codes = [await asyncio.wait_for(_first(call), 20 * UNIT) for call in calls]
    assert (await stubs[0].Check(HealthCheckRequest())).status == 1
    for channel in channels:
        await channel.close()
    return codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED)


async def _first(call: Any) -> grpc.StatusCode:
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_a_watcher_who_reads_nothing_holds_up_nobody(engine: Service) -> None:
    """While one watches and reads nothing, another hears how the engine is."""
    async with caller(engine.address) as silent, caller(engine.address) as other:
        stub: Any = HealthStub(silent.channel)
        call = stub.Watch(HealthCheckRequest())
        heard: Any = HealthStub(other.channel)
        assert (await heard.Watch(HealthCheckRequest()).read()).status == 1
        call.cancel()


async def test_strangers_who_ask_for_the_agents() -> None:
    """The engine is asked once a second at most, and a stranger only so often."""
    with engine(LOG_LEVEL="debug") as back, gateway(back.address, SOCKETS_PER_MINUTE="50") as front:
        await until(lambda: http_status(front, "/readyz") == 200)
        codes = await asyncio.to_thread(lambda: [http_status(front, "/v1/agents") for _ in range(80)])
        assert codes.count(200) >= 50
        assert codes[-1] == 429
        assert http_status(front, "/readyz") == 200


async def test_who_is_sent_away_and_reads_nothing() -> None:
    """One run that is resumed again and again by callers who read nothing holds so many calls, and no more."""
    with engine(MAX_RUNS_PER_USER="2") as back:
        async with caller(back.address) as alice:
            run_id = str(uuid.uuid4())
            calls = [alice.call("flood", run_id=run_id, resume_window={"seconds": 60})]
            await calls[0].read()
            for _ in range(40):
                calls.append(alice.resume(run_id))
                with suppress(grpc.aio.AioRpcError):
                    await calls[-1].read()
            refused = [
                call for call in calls if call.done() and await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            ]
            assert len(refused) >= 20  # some of those who were sent away hear it, and make room
            for call in calls:
                call.cancel()
