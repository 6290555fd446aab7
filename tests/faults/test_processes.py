"""What a browser sees when a process is killed, or stands still for a while: of each kind that there is."""

import asyncio
import json
import os
import resource
import signal
import socket as sockets
import time
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from engine_service.workers.demand import LEAST
from tests.support.clients import JSON, frames, opening, socket
from tests.support.services import BIN, Service, both, engine, gateway, is_gone, looks_inside, until, zygote_of
from tests.support.times import UNIT

AGENTS = "tests.agents.probes,tests.agents.dirt"
PAUSE = 1.0
"""Seconds that a process stands still."""


@pytest.fixture
def services() -> Iterator[tuple[Service, Service]]:
    with both(AGENTS=AGENTS, HEARTBEAT="0.3", MAX_RUNS_PER_USER="100") as (back, front):
        yield back, front


async def begun(connection: ClientConnection, agent: str, **fields: Any) -> str:
    """Open a run, and return the first thing that it says."""
    await connection.send(opening(JSON, agent, **fields))
    while True:
        for event in await events(connection):
            if "agentMessage" in event:
                return str(event["agentMessage"]["delta"])


async def events(connection: ClientConnection) -> list[Any]:
    """Return the events of the next frame."""
    return list(json.loads(await connection.recv()).get("events", []))


async def rest(connection: ClientConnection) -> tuple[list[Any], int | None]:
    """Read to the end, and return the events and the close code."""
    read = [event for frame in await frames(connection) for event in json.loads(frame).get("events", [])]
    return read, connection.close_code


async def works(front: Service) -> None:
    """Check that a new run is right, from its beginning to its end."""
    async with asyncio.timeout(10 * UNIT), socket(front.address) as connection:
        await connection.send(opening(JSON, "echo", "hi"))
        seen, code = await rest(connection)
    assert [event["seq"] for event in seen] == [1, 2, 3]
    assert (seen[-1]["agentCompleted"]["output"], code) == ("hi", 1000)


async def test_the_engine_is_killed(services: tuple[Service, Service]) -> None:
    """No terminal event, and 4014: come back. What came before was in order; the agent is gone too."""
    back, front = services
    async with socket(front.address) as connection:
        pid = int(await begun(connection, "pid"))
        back.kill()
        seen, code = await rest(connection)
    assert (seen, code) == ([], 4014)
    await until(lambda: is_gone(pid))
    with engine(AGENTS=AGENTS, LISTEN=back.address):
        async with asyncio.timeout(10 * UNIT):
            while not await _reachable(front):
                pass
        await works(front)


async def _reachable(front: Service) -> bool:
    async with socket(front.address) as connection:
        await connection.send(opening(JSON, "echo", "hi"))
        return (await rest(connection))[1] == 1000


async def test_the_zygote_is_killed(services: tuple[Service, Service]) -> None:
    """A run that goes on goes on to its end. For a moment a new one may be told 4014, come back; then they begin."""
    back, front = services
    async with socket(front.address) as connection:
        await begun(connection, "ticker", parameters={"ticks": 20})
        os.kill(zygote_of(back), signal.SIGKILL)
        async with asyncio.timeout(5 * UNIT):
            while not await _reachable(front):
                pass
        await works(front)
        seen, code = await rest(connection)
    assert "agentCompleted" in seen[-1]
    assert code == 1000


async def test_an_agent_is_killed(services: tuple[Service, Service]) -> None:
    """`agent_failed`, which says how its process ended, and 1000. A neighbour sees nothing."""
    _, front = services
    async with socket(front.address) as connection, socket(front.address) as neighbour:
        await begun(neighbour, "ticker", user="bob", parameters={"ticks": 10})
        os.kill(int(await begun(connection, "pid")), signal.SIGKILL)
        seen, code = await rest(connection)
        assert "agentCompleted" in (await rest(neighbour))[0][-1]
    assert seen[-1]["agentFailed"]["reason"] == "FAILURE_REASON_CRASHED"
    assert "SIGKILL" in seen[-1]["agentFailed"]["message"]
    assert code == 1000


async def test_an_agent_is_killed_while_the_zygote_stands_still(services: tuple[Service, Service]) -> None:
    """Nobody can say how it ended before the zygote goes on. Then its terminal event comes, and 1000."""
    back, front = services
    async with socket(front.address) as connection:
        pid = int(await begun(connection, "pid"))
        with _standing_still(zygote_of(back)):
            os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(PAUSE)  # the fault itself, longer than it takes to a heartbeat
        seen, code = await rest(connection)
    assert "SIGKILL" in seen[-1]["agentFailed"]["message"]
    assert code == 1000


async def test_the_gateway_is_killed(services: tuple[Service, Service]) -> None:
    """1006, and the agent of a run that isn't resumable is gone at once."""
    _, front = services
    async with socket(front.address) as connection:
        pid = int(await begun(connection, "pid"))
        front.kill()
        assert await rest(connection) == ([], 1006)
    assert await until(lambda: is_gone(pid)) < 1


@pytest.mark.parametrize("which", ["engine", "gateway"])
async def test_a_service_stands_still(services: tuple[Service, Service], which: str) -> None:
    """A pause, and nothing else: every event comes, in order, and new runs work."""
    back, front = services
    async with socket(front.address) as connection:
        await begun(connection, "ticker", parameters={"ticks": 30})
        with _standing_still(back.pid if which == "engine" else front.pid):
            await asyncio.sleep(PAUSE)  # the fault itself
        seen, code = await rest(connection)
    numbers = [event["seq"] for event in seen]
    assert numbers == list(range(numbers[0], 33))
    assert code == 1000
    await works(front)


async def test_the_zygote_stands_still(services: tuple[Service, Service]) -> None:
    """Runs go on, and new ones wait until there are processes again."""
    back, front = services
    async with socket(front.address) as connection:
        await begun(connection, "ticker", parameters={"ticks": 20})
        with _standing_still(zygote_of(back)):
            while "agentCompleted" not in (await events(connection) or [{}])[-1]:
                pass
            # Some processes wait for runs already; of more runs than that, the last one waits.
            many = [asyncio.create_task(works(front)) for _ in range(8)]
            await asyncio.wait(many, timeout=PAUSE)
            assert not all(task.done() for task in many)
        await asyncio.gather(*many)


async def test_an_agent_stands_still(services: tuple[Service, Service]) -> None:
    """Heartbeats say that the run is alive. Cancelled, it is ended although it can't hear of it."""
    _, front = services
    async with socket(front.address) as connection:
        pid = int(await begun(connection, "pid"))
        os.kill(pid, signal.SIGSTOP)
        for _ in range(2):
            assert await events(connection) == []
        asked = time.monotonic()
        await connection.send('{"cancel": {}}')
        seen, code = await rest(connection)
    assert 1.5 < time.monotonic() - asked < 4 * UNIT
    assert [*seen[-1]][-1] == "agentCancelled"
    assert code == 1000
    assert is_gone(pid)


class _standing_still:  # noqa: N801 - reads as what it is
    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __enter__(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGCONT)


async def test_no_room_for_logs() -> None:
    """Nothing: a disk that is full ends no run, and costs no memory."""
    ports = [_free_port() for _ in range(2)]
    back, front = (f"127.0.0.1:{port}" for port in ports)
    commands = [
        [
            "/bin/sh",
            "-c",
            f"exec {BIN}/engine-service --development --listen {back} --runs-per-minute 100000 >/dev/full 2>&1",
        ],
        ["/bin/sh", "-c", f"exec {BIN}/edge-gateway --listen {front} --engine {back} >/dev/full 2>&1"],
    ]
    processes = [await asyncio.create_subprocess_exec(*command) for command in commands]
    try:
        await until(lambda: all(_serves(port) for port in ports))
        before = psutil.Process(processes[0].pid).memory_info().rss
        for _ in range(8):
            async with socket(front) as connection:
                await connection.send(opening(JSON, "triage", "My invoice is wrong"))
                seen, code = await rest(connection)
            assert "agentCompleted" in seen[-1]
            assert code == 1000
        assert psutil.Process(processes[0].pid).memory_info().rss - before < 8 * 2**20
    finally:
        for process in processes:
            process.terminate()
        assert [await process.wait() for process in processes] == [0, 0]


@looks_inside
async def test_no_descriptors_left() -> None:
    """4014 for a run too many, come back; the runs there are go on, and later ones work."""
    with both(AGENTS=AGENTS, MAX_RUNS_PER_USER="100") as (back, front):
        await works(front)
        await until(lambda: len(psutil.Process(zygote_of(back)).children()) == LEAST)
        used = psutil.Process(back.pid).num_fds()
        resource.prlimit(back.pid, resource.RLIMIT_NOFILE, (used + 30, used + 30))
        async with AsyncExitStack() as stack:
            runs = [await stack.enter_async_context(socket(front.address)) for _ in range(40)]
            went = [await _begins(connection) for connection in runs]
            assert set(went) == {None, 4014}, "some began, and the others were told to come back"
            alive = runs[went.index(None)]
            await alive.send('{"cancel": {}}')
            assert "agentCancelled" in (await rest(alive))[0][-1]
        await until(lambda: psutil.Process(back.pid).num_fds() <= used)
        await works(front)


async def _begins(connection: ClientConnection) -> int | None:
    """Begin a run, and return None if it says something, or else the close code."""
    try:
        await begun(connection, "waiter")
    except ConnectionClosed:
        return connection.close_code
    return None


async def test_no_descriptors_left_in_the_gateway() -> None:
    """A socket too many waits to be let in; those there are go on, and it comes in when one of them leaves."""
    with both(AGENTS=AGENTS, MAX_RUNS_PER_USER="100") as (_, front):
        await works(front)
        used = psutil.Process(front.pid).num_fds()
        resource.prlimit(front.pid, resource.RLIMIT_NOFILE, (used + 5, used + 5))
        async with socket(front.address) as first:
            await begun(first, "ticker", parameters={"ticks": 40})
            idle = [await asyncio.open_connection("127.0.0.1", front.port) for _ in range(10)]
            late = asyncio.create_task(works(front))
            seen, code = await rest(first)
            assert "agentCompleted" in seen[-1]
            assert code == 1000
            for _, writer in idle:
                writer.close()
            await late


JUMPING = """
import random, time
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + random.choice((-3600, 0, 3600))
time.time_ns = lambda: real_ns() + random.choice((-3600, 0, 3600)) * 10**9
"""


async def test_the_clock_jumps(tmp_path: Path) -> None:
    """Times on events jump, and nothing else: numbers, order, heartbeats, time limits and the end are as ever."""
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    jumping = engine(folder=str(tmp_path), HEARTBEAT="0.2", RUN_TIMEOUT="2", AGENTS=AGENTS)
    with jumping as back, gateway(back.address) as front:
        await works(front)
        async with socket(front.address) as connection:
            run = {"agent": "ticker", "runId": str(uuid.uuid4()), "parameters": {"ticks": 20}}
            await connection.send(json.dumps({"run": run}))
            seen, code = await rest(connection)
        assert [event["seq"] for event in seen] == list(range(1, 23))
        assert code == 1000
        assert len({event["time"][:13] for event in seen}) > 1, "the clock did not jump"
        async with socket(front.address) as connection:
            started = time.monotonic()
            await begun(connection, "waiter")
            assert await events(connection) == []
            seen, code = await rest(connection)
        assert seen[-1]["agentFailed"]["reason"] == "FAILURE_REASON_TIMEOUT"
        assert 1.8 < time.monotonic() - started < 5 * UNIT


def _free_port() -> int:
    with sockets.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _serves(port: int) -> bool:
    with sockets.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
