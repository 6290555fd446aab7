"""Several engines behind one gateway: which of them gets a run, and where one is found again."""

import asyncio
import json
import signal
import socket as sockets
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import JSON, caller, frames, opening, said, socket
from tests.support.services import Service, looks_inside, until
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway


async def code_of(front: Service, user: str = "alice", agent: str = "echo", **fields: Any) -> int:
    async with socket(front.address) as connection:
        await connection.send(opening(JSON, agent, user=user, **fields))
        await frames(connection)
        return connection.close_code or 0


def in_front(*engines: Service) -> Service:
    return start_gateway(",".join(engine.address for engine in engines))


def started(engine: Service) -> int:
    return sum(record.get("event") == "run started" for record in engine.records)


async def test_a_rolling_restart() -> None:
    """While one of two engines drains, every new run begins at the other; none is told to come back."""
    with start_engine(DRAIN_GRACE="20") as one, start_engine() as two, in_front(one, two) as front:
        while not (started(one) and started(two)):
            assert await code_of(front) == 1000
        async with caller(one.address) as alice:
            call = alice.call("waiter")
            assert await said(call) == "waiting"  # so that it drains for long
            one.signal(signal.SIGTERM)
            codes = [await code_of(front) for _ in range(40)]
            call.cancel()
        assert codes == [1000] * 40


async def test_a_full_engine_and_an_idle_one() -> None:
    """A run that one engine has no room for begins at the other; with both full it is told to come back."""
    with start_engine(MAX_RUNS="1") as one, start_engine(MAX_RUNS="1") as two, in_front(one, two) as front:
        async with caller(one.address) as alice, caller(two.address) as bob:
            first = alice.call("waiter")
            assert await said(first) == "waiting"
            assert [await code_of(front) for _ in range(20)] == [1000] * 20
            second = bob.call("waiter")
            assert await said(second) == "waiting"
            assert await code_of(front) == 4008
            first.cancel()
            second.cancel()


async def test_an_engine_that_is_killed() -> None:
    """Runs that come after one of two engines was killed begin at the other."""
    with start_engine() as one, start_engine() as two, in_front(one, two) as front:
        while not (started(one) and started(two)):
            assert await code_of(front) == 1000
        one.kill()
        assert [await code_of(front) for _ in range(20)] == [1000] * 20


@looks_inside
async def test_engines_behind_one_name(tmp_path: Path) -> None:
    """Each address of a name is an engine of its own: 60 runs that are resumed at once are all found."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 engines\n127.0.0.2 engines\n")
    # The gateway alone sees this file: its names are nobody else's.
    steps = 'mount --bind "$0" /etc/hosts; exec "$@"'
    before = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", steps, str(hosts)]
    with sockets.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    many = {"MAX_RUNS_PER_USER": "100"}
    with (
        start_engine(LISTEN=f"127.0.0.1:{port}", **many) as one,
        start_engine(LISTEN=f"127.0.0.2:{port}", **many) as two,
        start_gateway(f"engines:{port}", before=before) as front,
    ):
        await until(lambda: bool(one.address and two.address))
        while not (started(one) and started(two)):  # the gateway knows both
            assert await code_of(front) == 1000
        ids = [str(uuid.uuid4()) for _ in range(60)]

        async def begin(run_id: str) -> int:
            async with socket(front.address, open_timeout=30) as connection:
                await connection.send(opening(JSON, "waiter", runId=run_id, resumeWindow="60s"))
                return int(json.loads(await connection.recv())["events"][-1]["seq"])

        seen = await asyncio.gather(*(begin(run_id) for run_id in ids))
        assert started(one) >= 20
        assert started(two) >= 20
        asked = zip(ids, seen, strict=True)
        assert await asyncio.gather(*(cancelled(front, run_id, after) for run_id, after in asked)) == [1000] * 60


async def cancelled(front: Service, run_id: str, after: int) -> int:
    """Join a run, cancel it, and return the close code."""
    async with socket(front.address, open_timeout=30) as connection:
        await connection.send(json.dumps({"accessToken": "dev:alice", "resume": {"runId": run_id, "afterSeq": after}}))
        await connection.recv()
        await connection.send('{"cancel": {}}')
        await frames(connection)
        return connection.close_code or 0


@pytest.mark.parametrize(("after", "reason"), [(0, "You have no such run."), (7, "Your run was lost.")])
async def test_a_run_that_was_lost(after: int, reason: str) -> None:
    """Whoever has read of a run that no engine has is told that it was lost; who hasn't, that there is none."""
    with start_engine() as one, start_engine() as two, in_front(one, two) as front:
        async with socket(front.address) as connection:
            resume = {"runId": str(uuid.uuid4()), "afterSeq": after}
            await connection.send(json.dumps({"accessToken": "dev:alice", "resume": resume}))
            await frames(connection)
            assert (connection.close_code, connection.close_reason) == (4005, reason)
