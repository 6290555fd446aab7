"""Resumable runs through the gateway: found at any engine, taken over, let go of, and cancelled."""

import json
import uuid
from typing import Any

from websockets.asyncio.client import ClientConnection

from tests.support.clients import JSON, frames, socket
from tests.support.services import Service, both, http_status, is_gone, until
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway

AGENTS = "tests.agents.probes,tests.agents.dirt"


async def ask(connection: ClientConnection, agent: str, run_id: str) -> list[Any]:
    """Begin a resumable run, and read until it says something."""
    run = {"agent": agent, "runId": run_id, "resumeWindow": "60s"}
    await connection.send(json.dumps({"run": run}))
    return await read(connection, 2)


async def join(connection: ClientConnection, run_id: str, after: int) -> None:
    await connection.send(json.dumps({"resume": {"runId": run_id, "afterSeq": after}}))


async def read(connection: ClientConnection, upto: int) -> list[Any]:
    """Read up to an event of this number."""
    events: list[Any] = []
    while not (events and events[-1]["seq"] >= upto):
        events += json.loads(await connection.recv()).get("events", [])
    return events


async def rest(connection: ClientConnection) -> list[Any]:
    """Read to the end."""
    return [event for frame in await frames(connection) for event in json.loads(frame).get("events", [])]


async def test_a_run_is_found_at_any_engine() -> None:
    """The gateway asks one engine after the other. Where one can't be asked, it may be there."""
    run_id = str(uuid.uuid4())
    with start_engine() as one, start_engine() as other, start_gateway(f"{one.address},{other.address}") as front:
        async with socket(front.address) as connection:
            seen = (await ask(connection, "ticker", run_id))[-1]["seq"]
        for _ in range(3):
            async with socket(front.address) as connection:
                await join(connection, run_id, seen)
                events = await read(connection, seen + 2)
                assert [event["seq"] for event in events] == list(range(seen + 1, seen + 1 + len(events)))
                seen = events[-1]["seq"]
        assert await _closed(front, str(uuid.uuid4())) == 4005
        one.kill()
        assert await _closed(front, str(uuid.uuid4())) == 4014


async def _closed(front: Service, run_id: str) -> int | None:
    async with socket(front.address) as connection:
        await join(connection, run_id, 0)
        await frames(connection)
        return connection.close_code


async def test_a_new_socket_takes_over() -> None:
    """The old one is closed with 4010, and a position that isn't there with 4011."""
    run_id = str(uuid.uuid4())
    with both(AGENTS=AGENTS) as (_, front):
        async with socket(front.address) as old, socket(front.address) as new:
            seen = (await ask(old, "ticker", run_id))[-1]["seq"]
            await join(new, run_id, seen)
            events = await read(new, seen + 1)
            await frames(old)
            assert old.close_code == 4010
            async with socket(front.address) as wrong:
                await join(wrong, run_id, 1000)
                await frames(wrong)
                assert wrong.close_code == 4011
            events += await rest(new)
            assert new.close_code == 1000
            assert [event["seq"] for event in events] == list(range(seen + 1, 63))


async def test_left_by_a_frame() -> None:
    """A socket that is asked to leave closes behind all that was sent: a run with a window goes on, another ends."""
    with both(AGENTS=AGENTS) as (_, front):
        for window in ("60s", None):
            run_id = str(uuid.uuid4())
            async with socket(front.address) as connection:
                await connection.send(json.dumps({"run": {"agent": "flood", "runId": run_id, "resumeWindow": window}}))
                events = await read(connection, 2)
                await connection.send('{"leave": {}}')
                events += await rest(connection)
                assert connection.close_code == 1000
            seqs = [event["seq"] for event in events]
            assert seqs == list(range(1, len(seqs) + 1))
            pid = int(events[1]["agentMessage"]["delta"])
            if not window:
                await until(lambda pid=pid: is_gone(pid))  # type: ignore[misc]
                continue
            assert not is_gone(pid)
            async with socket(front.address) as connection:
                await join(connection, run_id, seqs[-1])
                assert (await read(connection, seqs[-1] + 1))[0]["seq"] == seqs[-1] + 1
                await connection.send('{"cancel": {}}')
            await until(lambda pid=pid: is_gone(pid))  # type: ignore[misc]


async def test_left_before_it_is_refused() -> None:
    """A call that is refused closes with its own code, also where one wants to leave at once."""
    with both(AGENTS=AGENTS) as (_, front):
        for first, code in (
            ({"run": {"agent": "nobody"}}, 4005),
            ({"run": {"agent": "echo", "threadId": "x" * 300}}, 4003),
            ({"resume": {"runId": str(uuid.uuid4())}}, 4005),
            ({"run": {"agent": "echo"}, "accessToken": "nonsense"}, 4016),
        ):
            async with socket(front.address) as connection:
                await connection.send(json.dumps(first))
                await connection.send('{"leave": {}}')
                await frames(connection)
                assert connection.close_code == code


async def test_an_engine_that_hangs_is_left() -> None:
    """Whoever leaves before an engine has answered does not wait for it."""
    with both(AGENTS=AGENTS) as (back, front):
        await until(lambda: http_status(front, "/readyz") == 200)  # its channel is there: or no engine would be found
        async with socket(front.address) as connection:
            back.pause()
            try:
                await connection.send(json.dumps({"run": {"agent": "echo"}}))
                await connection.send('{"leave": {}}')
                await frames(connection)
            finally:
                back.go_on()
            assert connection.close_code == 1000


async def test_cancel_and_close() -> None:
    """Closing lets go of a resumable run, and saying cancel before ends it, also at once and after a resume."""
    with both(AGENTS=AGENTS) as (back, front):
        for resumed in (False, True):
            run_id = str(uuid.uuid4())
            async with socket(front.address) as connection:
                pid = int((await ask(connection, "pid", run_id))[-1]["agentMessage"]["delta"])
                if not resumed:
                    await connection.send('{"cancel": {}}')
            if resumed:
                assert not is_gone(pid)
                async with socket(front.address) as connection:
                    await join(connection, run_id, 2)
                    assert "events" not in json.loads(await connection.recv())
                    await connection.send('{"cancel": {}}')
            await until(lambda pid=pid: is_gone(pid))  # type: ignore[misc]
            async with socket(front.address, JSON) as connection:
                await join(connection, run_id, 2)
                [end] = await rest(connection)
                assert end["agentCancelled"] == {"reason": "Cancelled by its user."}
        assert back.process.poll() is None
