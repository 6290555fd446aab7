"""One socket is one stream: the seven faults, the death of the engine, and the limits. Real processes throughout."""

import asyncio
import contextlib
import json
import signal
import socket as sockets
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psutil
import pytest
from google.protobuf import json_format
from runwire.v1.engine_pb2 import RunResponse
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from tests.support.clients import HANDSHAKE, JSON, PROTO, events_of, frames, kind, opening, socket, terminal
from tests.support.services import Service, both, is_gone, until
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.times import UNIT

AGENTS = "tests.agents.probes,tests.agents.dirt,tests.agents.rogues"
TOLD = 0.1
"""Seconds within which the engine has to be told, and the agent to be gone. An agent needs some of them to die."""


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[Service, Service]]:
    with both(AGENTS=AGENTS, MAX_RUNS_PER_USER="100", HEARTBEAT="1") as (back, front):
        yield back, front


FLOOD = b'{"run": {"agent": "flood"}}'


def reset(connection: ClientConnection) -> None:
    """Leave without a word: the connection is reset."""
    raw = connection.transport.get_extra_info("socket")
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.transport.abort()


async def begun(connection: ClientConnection, agent: str = "pid", order: str = "") -> int:
    """Open a run, and return the agent's process."""
    await connection.send(opening(JSON, agent, order))
    while True:
        for event in json.loads(await connection.recv()).get("events", []):
            if "agentMessage" in event:
                return int(event["agentMessage"]["delta"])


async def test_normal_end(services: tuple[Service, Service]) -> None:
    """Fault 0: the run ends, and the socket closes with 1000."""
    async with socket(services[1].address, PROTO) as connection:
        await connection.send(opening(PROTO, "echo", "hi"))
        assert terminal(events_of(await frames(connection))).agent_completed.output == "hi"
        assert connection.close_code == 1000


@pytest.mark.parametrize(
    ("frame", "code", "says"),
    [
        ({"run": {"agent": "nobody"}}, 4005, "There is no agent named 'nobody'"),
        ({"run": {"agent": "echo", "threadId": "x" * 300}}, 4003, "thread_id"),
        ({"run": {"agent": "echo"}, "accessToken": "nonsense"}, 4016, "not signed in"),
        ({"cancel": {}}, 4003, "first frame"),
        ({"leave": {}}, 4003, "first frame"),
        ({"nonsense": {}}, 4003, "ClientFrame"),
        ({}, 4003, "first frame"),
    ],
)
async def test_the_engine_refuses(services: tuple[Service, Service], frame: Any, code: int, says: str) -> None:
    """Fault 1: what the engine refuses closes the socket with its status, and a sentence for a person."""
    async with socket(services[1].address) as connection:
        await connection.send(json.dumps(frame))
        assert await frames(connection) == []
        assert connection.close_code == code
        assert says in (connection.close_reason or "")


async def told(front: Service, leave: Callable[[ClientConnection, int], Awaitable[None]], agent: str = "pid") -> None:
    """Check that an agent is gone in time when its browser leaves in some way.

    Three times, of which the best counts: what this machine does besides can only make it longer.
    """
    took = []
    for _ in range(3):
        async with socket(front.address, max_queue=1 if agent == "flood" else 16) as connection:
            pid = await begun(connection, agent)
            await leave(connection, pid)
            took.append(await until(lambda pid=pid: is_gone(pid)))  # type: ignore[misc]
    assert min(took) < TOLD, took


async def test_the_browser_closes(services: tuple[Service, Service]) -> None:
    """Fault 2: the browser closes its socket, and the agent is gone."""

    async def leave(connection: ClientConnection, _: int) -> None:
        await connection.close()

    await told(services[1], leave)


async def test_the_browser_resets_while_the_engine_is_silent(services: tuple[Service, Service]) -> None:
    """Fault 3: the connection breaks while nothing is sent, and the agent is gone."""

    async def leave(connection: ClientConnection, _: int) -> None:
        reset(connection)

    await told(services[1], leave)


async def test_the_browser_resets_while_a_send_is_blocked(services: tuple[Service, Service]) -> None:
    """Fault 4: the connection breaks while the gateway waits for the browser to read, and the agent is gone."""

    async def leave(connection: ClientConnection, pid: int) -> None:
        await stands_still(pid)
        reset(connection)

    await told(services[1], leave, "flood")


async def stands_still(pid: int) -> None:
    """Wait until an agent has no room to say more."""

    def used() -> float:
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)

    before = -1.0
    while (now := used()) != before:
        before = now
        await asyncio.sleep(0.1)


async def test_the_browser_sends_much_and_resets(services: tuple[Service, Service]) -> None:
    """Fault 5: 40 frames that nobody asked for, then the connection breaks, and the agent is gone."""

    async def leave(connection: ClientConnection, _: int) -> None:
        with contextlib.suppress(ConnectionClosed):
            for _number in range(40):
                await connection.send('{"nonsense": 1}')
        reset(connection)

    await told(services[1], leave)


async def test_the_gateway_stops() -> None:
    """Fault 6: told to stop, the gateway lets sockets finish, and tells the rest to come back; no agent is left."""
    with start_engine(agents=AGENTS) as back, start_gateway(back.address, DRAIN_GRACE="1.5") as front:
        async with socket(front.address) as short, socket(front.address) as long:
            pid = await begun(long)
            await short.send(opening(JSON, "ticker", parameters={"ticks": 10}))
            await short.recv()
            front.signal(signal.SIGTERM)
            assert "agentCompleted" in (await frames(short))[-1]
            assert short.close_code == 1000
            await frames(long)
            assert (long.close_code, long.close_reason) == (1012, "The gateway is restarting. Come back.")
            assert await until(lambda: is_gone(pid)) < 1
        assert await asyncio.to_thread(front.wait) == 0
        assert not [record for record in front.records if record.get("level") not in {"info", None}]


async def test_the_engine_dies() -> None:
    """Fault 7: the engine is killed, and the browser is told that it may come back; when it is up again, it may."""
    with start_engine(agents=AGENTS) as back, start_gateway(back.address) as front:
        address = back.address
        async with socket(front.address) as connection:
            pid = await begun(connection)
            started = time.monotonic()
            back.kill()
            await frames(connection)
            assert connection.close_code == 4014
            assert time.monotonic() - started < 1 * UNIT
            assert "cannot be reached" in (connection.close_reason or "")
            assert await until(lambda: is_gone(pid)) < 5

        async with socket(front.address) as connection:  # while it is away
            started = time.monotonic()
            await connection.send(opening(JSON, "echo"))
            assert await frames(connection) == []
            assert connection.close_code == 4014
            assert time.monotonic() - started < 2 * UNIT

        with start_engine(agents=AGENTS, LISTEN=address) as again:
            assert again.address == address
            code = 4014
            while code == 4014:
                async with socket(front.address) as connection:
                    await connection.send(opening(JSON, "echo", "back"))
                    await frames(connection)
                    code = connection.close_code or 0
            assert code == 1000


async def test_several_engines() -> None:
    """Several engines are used in turn, and one that is dead is passed over."""
    with start_engine() as one, start_engine() as two, start_gateway(f"{one.address},{two.address}") as front:

        async def runs() -> list[int]:
            for _ in range(6):
                async with socket(front.address) as connection:
                    await connection.send(opening(JSON, "echo"))
                    await frames(connection)
                    assert connection.close_code == 1000
            return [sum(record.get("event") == "run started" for record in each.records) for each in (one, two)]

        async with socket(front.address) as connection:  # a first one, so that both connections are there
            await connection.send(opening(JSON, "echo"))
            await frames(connection)
        shares = [0, 0]
        while 0 in shares:
            shares = await runs()
        one.kill()
        before = shares[1]
        await until_passed_over(front)
        assert (await runs())[1] >= before + 6


async def until_passed_over(front: Service) -> None:
    """Wait until the gateway has noticed that an engine is gone: that takes it a moment of its loop."""
    code = 0
    while code != 1000:
        async with socket(front.address) as connection:
            await connection.send(opening(JSON, "echo"))
            await frames(connection)
            code = connection.close_code or 0


@pytest.mark.parametrize("subprotocol", [JSON, PROTO])
async def test_cancel(services: tuple[Service, Service], subprotocol: str) -> None:
    """`cancel` stops the run, and `agent_cancelled` is still delivered; any other later frame closes with 4003."""
    cancel = '{"cancel": {}}' if subprotocol == JSON else b"\x62\x00"
    async with socket(services[1].address, subprotocol) as connection:
        await connection.send(opening(subprotocol, "waiter"))
        await connection.send(cancel)
        await connection.send(cancel)
        received = await frames(connection)
        assert connection.close_code == 1000
    if subprotocol == PROTO:
        events = events_of(received)
    else:
        events = [event for frame in received for event in json_format.Parse(frame, RunResponse()).events]
    assert terminal(events).agent_cancelled.reason == "Cancelled by its user."


async def test_later_frames(services: tuple[Service, Service]) -> None:
    """A second run on the same socket closes it."""
    async with socket(services[1].address) as connection:
        pid = await begun(connection)
        await connection.send(opening(JSON, "echo"))
        await frames(connection)
        assert connection.close_code == 4003
        assert await until(lambda: is_gone(pid)) < 1


async def test_an_event_that_is_none() -> None:
    """What an agent's process writes and nobody can read closes the socket with 4013, and is logged: no one waits."""
    with both(AGENTS=AGENTS) as (_, front):
        async with socket(front.address) as connection, asyncio.timeout(10 * UNIT):
            await connection.send(opening(JSON, "rogue", "write_what_is_no_event"))
            await frames(connection)
        assert connection.close_code == 4013
        assert front.wait_for(lambda record: record["event"] == "a socket's stream broke")["incident"]


async def test_heartbeats_pass(services: tuple[Service, Service]) -> None:
    """A quiet run's heartbeats reach the browser as frames without events."""
    async with socket(services[1].address) as connection:
        await connection.send(opening(JSON, "waiter"))
        quiet = 0
        while quiet < 2:
            quiet += "events" not in json.loads(await connection.recv())


async def test_open_timeout() -> None:
    """A socket that does not say what it wants is closed."""
    with start_gateway("127.0.0.1:1", OPEN_TIMEOUT="0.3") as front:
        async with socket(front.address) as connection:
            await frames(connection)
            assert connection.close_code == 4004


async def test_too_large_a_frame(services: tuple[Service, Service]) -> None:
    """A frame over `MAX_FRAME_BYTES` closes the socket."""
    async with socket(services[1].address) as connection:
        await connection.send(opening(JSON, "echo", "x" * (1024 * 1024)))
        await frames(connection)
        assert connection.close_code == 1009


async def test_too_many_sockets() -> None:
    """A socket for which there is no room is refused before the upgrade, and told when to come back."""
    with start_engine() as back, start_gateway(back.address, MAX_CONNECTIONS="2") as front:
        async with socket(front.address) as one, socket(front.address) as two:
            with pytest.raises(InvalidStatus) as caught:
                async with socket(front.address):
                    pass
            assert caught.value.response.status_code == 503
            assert int(caught.value.response.headers["Retry-After"]) > 0
            for connection in (one, two):
                await connection.send(opening(JSON, "echo"))
                await frames(connection)
                assert connection.close_code == 1000


async def test_a_stalled_browser_is_closed() -> None:
    """A browser that takes no byte for `STALL_TIMEOUT` is closed with 4008, and its agent is gone."""
    with start_engine(agents=AGENTS) as back, start_gateway(back.address, STALL_TIMEOUT="1") as front:
        async with socket(front.address, max_queue=1) as connection:
            pid = await begun(connection, "flood")
            await until(lambda: is_gone(pid), patience=10 * UNIT)
            await frames(connection)
            assert connection.close_code == 4008


async def test_a_slow_browser_is_not() -> None:
    """A browser that reads slowly is waited for: as long as it takes a byte now and then, its run goes on."""
    with start_engine(agents=AGENTS) as back, start_gateway(back.address, STALL_TIMEOUT="1") as front:
        loop = asyncio.get_running_loop()
        # A plain socket, since a client with a buffer of its own takes much at once, and then nothing for long.
        with sockets.socket() as browser:
            browser.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 64 * 1024)
            browser.setblocking(False)
            await loop.sock_connect(browser, ("127.0.0.1", front.port))
            await loop.sock_sendall(browser, HANDSHAKE)
            await loop.sock_sendall(browser, Frame(Opcode.TEXT, FLOOD).serialize(mask=True))
            until_then = time.monotonic() + 4 * UNIT
            while time.monotonic() < until_then:
                assert await loop.sock_recv(browser, 16 * 1024)
                await asyncio.sleep(0.02)  # slow on purpose, not to wait for anything
            assert back.records[-1]["event"] == "run started"
        back.wait_for(lambda record: record["event"] == "run left by its caller")


@pytest.mark.measures
@pytest.mark.force
async def test_memory_with_a_stalled_browser(services: tuple[Service, Service]) -> None:
    """A browser stalls while its agent wants to say a million things: nobody grows, and nobody else feels it."""
    back, front = services

    async def first_event() -> float:
        started = time.perf_counter()
        async with socket(front.address) as connection:
            await connection.send(opening(JSON, "echo", user="bob"))
            await connection.recv()
            return time.perf_counter() - started

    usual = sorted([await first_event() for _ in range(40)])[20]
    async with socket(front.address, max_queue=1, close_timeout=0.1) as connection:
        pid = await begun(connection, "flood")

        def memory() -> int:
            return sum(psutil.Process(each).memory_info().rss for each in (back.pid, front.pid, pid))

        before = memory()
        took = []
        end = time.monotonic() + 10 * UNIT
        while time.monotonic() < end:
            took.append(await first_event())
        grown = memory() - before
        assert not is_gone(pid)
    beside = sorted(took)[len(took) // 2]
    print(f"grown by {grown / 1e6:.1f} MB; first event {usual * 1e3:.1f} ms alone, {beside * 1e3:.1f} ms beside")
    assert grown < 8e6
    assert beside < 2 * usual


@pytest.mark.measures
async def test_a_thousand_sockets() -> None:
    """1,000 sockets with runs that wait cost the gateway at most 60 KB each; none is refused; all end right."""
    count = 1000
    limits = {"MAX_RUNS": "2000", "MAX_RUNS_PER_USER": "2000"}
    with start_engine(agents="tests.agents.tasks", **limits) as back, start_gateway(back.address) as front:
        async with contextlib.AsyncExitStack() as stack:
            gateway = psutil.Process(front.pid)
            warm = [await stack.enter_async_context(socket(front.address, PROTO)) for _ in range(20)]
            for connection in warm:
                await connection.send(opening(PROTO, "task_waiter"))
                await connection.recv()
            before = gateway.memory_info().rss
            opened = []
            for _ in range(count):
                connection = await stack.enter_async_context(socket(front.address, PROTO))
                await connection.send(opening(PROTO, "task_waiter"))
                opened.append(connection)
            received = [events_of([await connection.recv(decode=False)]) for connection in opened]
            each = (gateway.memory_info().rss - before) / count
            print(f"{each / 1024:.1f} KB of the gateway's memory for a socket")
            for connection in opened:
                await connection.send(b"\x62\x00")
            for connection, events in zip(opened, received, strict=True):
                whole = [*events, *events_of(await frames(connection))]
                assert kind(terminal(whole)) == "agent_cancelled"
                assert connection.close_code == 1000
            assert each <= 60 * 1024


def test_nothing_is_logged_that_is_no_error(services: tuple[Service, Service]) -> None:
    """After all of these, the gateway has logged no error, no exception, and no task that was forgotten."""
    assert [record["event"] for record in services[1].records] == ["serving"]
