"""Every figure that operators read is moved by what it is a figure of."""

import asyncio
import os
import re
import signal
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.clients import JSON, caller, frames, kind, opening, socket, taken
from tests.support.services import Service, free_address, looks_inside, zygote_of
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.times import PATIENCE
from tests.support.valkey import valkey

pytestmark = pytest.mark.operations
AGENTS = "tests.agents.probes,tests.agents.models,tests.agents.asking"
MEMORY = 16 * 1024 * 1024
ENGINE = "runwire_engine_"
GATEWAY = "runwire_gateway_"

UNMOVED = {
    f"{ENGINE}runs_limit": 30,
    f"{ENGINE}journal_limit_bytes": MEMORY,
    f"{GATEWAY}sockets_limit": 40,
    f"{GATEWAY}engines": 1,
    f'runwire_engine_info{{version="{version("runwire")}"}}': 1,
    f'runwire_gateway_info{{version="{version("runwire")}"}}': 1,
}
"""Figures that are always the same, and what they are."""


class Before:
    """Figures of a service, and how much they have moved since."""

    def __init__(self, service: Service, prefix: str) -> None:
        self._service = service
        self._prefix = prefix
        self._before = service.figures()

    def moved(self, name: str) -> float:
        """Return by how much one has moved."""
        full = self._prefix + name
        return self._service.figures().get(full, 0) - self._before.get(full, 0)

    async def until(self, name: str, is_so: Callable[[float], bool]) -> None:
        """Wait until it has."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while not is_so(by := self.moved(name)):
            assert asyncio.get_running_loop().time() < end, f"{name} moved by {by}"
            await asyncio.sleep(0.2)  # figures are as they were for a second


def is_one(by: float) -> bool:
    return by == 1


@pytest.fixture(scope="module")
def back() -> Iterator[Service]:
    with start_engine(agents=AGENTS, RESUME_MEMORY=str(MEMORY), MAX_RUNS="30") as service:
        yield service


@pytest.fixture(scope="module")
def front(back: Service) -> Iterator[Service]:
    with start_gateway(back.address, STALL_TIMEOUT="1", MAX_CONNECTIONS="40") as service:
        yield service


async def test_runs_that_complete(back: Service) -> None:
    before = Before(back, ENGINE)
    async with caller(back.address) as alice:
        events = await alice.run("counting", "well")
    await before.until('runs_started_total{agent="counting"}', is_one)
    await before.until('runs_ended_total{agent="counting",ending="completed"}', is_one)
    assert before.moved('run_duration_seconds_count{agent="counting"}') == 1
    assert before.moved('run_duration_seconds_sum{agent="counting"}') > 0
    assert before.moved('run_duration_seconds_bucket{agent="counting",le="+Inf"}') == 1
    assert before.moved("first_event_seconds_count") == 1
    assert before.moved("first_event_seconds_sum") > 0
    assert before.moved('first_event_seconds_bucket{le="10.0"}') == 1
    assert before.moved("events_total") == len(events)
    assert before.moved("event_bytes_total") > sum(len(event.SerializeToString()) for event in events)
    assert before.moved('tokens_total{kind="input",model="small"}') == 150
    assert before.moved('tokens_total{kind="cached_input",model="small"}') == 40
    assert before.moved('tokens_total{kind="output",model="small"}') == 15


@pytest.mark.parametrize(
    ("input", "ending"),
    [("fail", "agent_error"), ("model", "model_error"), ("crash", "crashed"), ("wait", "cancelled")],
)
async def test_runs_that_end_otherwise(back: Service, input: str, ending: str) -> None:
    before = Before(back, ENGINE)
    async with caller(back.address) as alice:
        run_id = str(uuid.uuid4())
        call = alice.call("counting", input, run_id=run_id)
        if ending == "cancelled":
            await taken(call, 4)
            await alice.cancel(run_id)
        await taken(call)
    await before.until(f'runs_ended_total{{agent="counting",ending="{ending}"}}', is_one)
    assert before.moved('tokens_total{kind="input",model="small"}') == 150


async def test_runs_that_time_out() -> None:
    with start_engine(RUN_TIMEOUT="0.5") as back:
        before = Before(back, ENGINE)
        async with caller(back.address) as alice:
            await alice.run("waiter")
        await before.until('runs_ended_total{agent="waiter",ending="timeout"}', is_one)


async def test_what_was_left_was_used(back: Service) -> None:
    """What models took for a run whose caller went away is counted, too."""
    before = Before(back, ENGINE)
    async with caller(back.address) as alice:
        call = alice.call("counting", "wait")
        await taken(call, 4)
        call.cancel()
        await before.until('runs_ended_total{agent="counting",ending="left"}', is_one)
    assert before.moved('tokens_total{kind="input",model="small"}') == 150


async def test_whatever_is_asked_for_there_are_two_formats(back: Service) -> None:
    """A stranger who asks for formats of their own gets one of ours, and makes nothing grow."""
    asked = ("text/plain; version=1.7.0", "application/openmetrics-text; version=9.9", "nonsense; version=abc", "")
    found = [await asyncio.to_thread(content_type, back, accept) for accept in asked]
    plain, openly = "text/plain", "application/openmetrics-text"
    assert [each.partition(";")[0] for each in found] == [plain, openly, plain, plain]


def content_type(service: Service, accept: str) -> str:
    request = urllib.request.Request(f"http://{service.operations}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return str(answer.headers["Content-Type"])


async def test_runs_that_are_left(back: Service) -> None:
    before = Before(back, ENGINE)
    async with caller(back.address) as alice:
        call = alice.call("waiter")
        await taken(call, 2)
        await before.until("runs", is_one)
        await before.until("run_memory_bytes", lambda by: by > 500_000)
        call.cancel()
    await before.until('runs_ended_total{agent="waiter",ending="left"}', is_one)
    await before.until("runs", lambda by: by == 0)


async def test_runs_that_wait_for_their_users(back: Service) -> None:
    before = Before(back, ENGINE)
    async with caller(back.address) as alice:
        call = alice.call("asker", "Which?")
        async for response in call:
            if "input_requested" in map(kind, response.events):
                break
        await before.until("runs_waiting", is_one)
        call.cancel()
    await before.until("runs_waiting", lambda by: by == 0)


async def test_journals(back: Service) -> None:
    before = Before(back, ENGINE)
    async with caller(back.address) as alice:
        window = Duration(seconds=30)
        await alice.run("echo", "x" * 100_000, run_id=str(uuid.uuid4()), resume_window=window)
    await before.until("journal_bytes", lambda by: by > 100_000)


async def test_refusals(back: Service) -> None:
    before = Before(back, ENGINE)
    async with caller(back.address) as alice:
        for agent in ("nobody", "echo"):
            with suppress(Exception):
                await alice.run(agent, run_id="nonsense" if agent == "echo" else "")
    await before.until('refusals_total{reason="NOT_FOUND"}', is_one)
    assert before.moved('refusals_total{reason="INVALID_ARGUMENT"}') == 1


async def test_what_nobody_may_choose_is_bounded(back: Service) -> None:
    """Names of agents that do not exist, of users, and of runs, are in no figure."""
    async with caller(back.address, user="somebody") as them:
        for name in ("made-up-1", "made-up-2"):
            with suppress(Exception):
                await them.run(name)
        await them.run("echo", run_id=(run_id := str(uuid.uuid4())))
    said = " ".join(back.figures())
    assert "made-up" not in said
    assert "somebody" not in said
    assert run_id not in said


async def test_processes() -> None:
    """Births are timed; a zygote that stands still has births that fail, and is replaced."""
    with start_engine() as back:
        before = Before(back, ENGINE)
        async with caller(back.address) as alice:
            await alice.run("echo")
            await before.until("birth_seconds_count", lambda by: by >= 1)
            assert before.moved("birth_seconds_sum") > 0
            assert before.moved('birth_seconds_bucket{le="+Inf"}') >= 1
            os.kill(zygote_of(back), signal.SIGSTOP)
            await alice.run("echo")  # with a process that waits; and another is to wait in its stead
            await before.until("spares", lambda by: by < 0)
            await before.until("births_failed_total", lambda by: by >= 1)
            await before.until("zygote_restarts_total", is_one)
            await before.until("spares", lambda by: by >= 0)


async def test_an_engine_that_drains() -> None:
    """It says that it takes no runs, to whoever balances load, as long as it has some."""
    with start_engine(DRAIN_GRACE="30") as back:
        before = Before(back, ENGINE)
        assert status(back, "/readyz") == 200
        async with caller(back.address) as alice:
            call = alice.call("waiter")
            await taken(call, 2)
            back.signal(signal.SIGTERM)
            await before.until("accepting", lambda by: by == -1)
            assert (status(back, "/healthz"), status(back, "/readyz")) == (200, 503)
            call.cancel()
        assert back.wait() == 0


async def test_the_store() -> None:
    with valkey() as server, start_engine(STORE=server.url) as back:
        before = Before(back, ENGINE)
        assert back.figures()[f"{ENGINE}store_reachable"] == 1
        server.kill()
        await before.until("store_reachable", lambda by: by == -1)
        server.start()
        await before.until("store_reachable", lambda by: by == 0)


async def test_sockets(front: Service) -> None:
    before = Before(front, GATEWAY)
    async with socket(front.address) as connection:
        await before.until("sockets", is_one)
        await connection.send(opening(JSON, "echo", "hello"))
        await frames(connection)
    await before.until("sockets", lambda by: by == 0)
    assert before.moved("sockets_opened_total") == 1
    assert before.moved('sockets_closed_total{code="1000"}') == 1
    assert before.moved("socket_duration_seconds_count") == 1
    assert before.moved("socket_duration_seconds_sum") > 0
    assert before.moved('socket_duration_seconds_bucket{le="+Inf"}') == 1
    async with socket(front.address) as connection:
        await connection.send(opening(JSON, "nobody"))
        with suppress(ConnectionClosed):
            await connection.recv()
    await before.until('sockets_closed_total{code="4005"}', is_one)
    async with socket(front.address) as connection:
        await connection.close(4321, "as I please")
    await before.until('sockets_closed_total{code="other"}', is_one)
    async with socket(front.address) as connection:
        connection.transport.abort()
    await before.until('sockets_closed_total{code="1006"}', is_one)


async def test_browsers_that_read_nothing(front: Service) -> None:
    before = Before(front, GATEWAY)
    async with socket(front.address, max_queue=1) as connection:
        await connection.send(opening(JSON, "flood"))
        connection.transport.pause_reading()
        await before.until("stalls_total", is_one)
        connection.transport.abort()


async def test_handshakes_that_are_refused(front: Service) -> None:
    before = Before(front, GATEWAY)
    with pytest.raises(InvalidStatus):
        async with socket(front.address, origin="https://elsewhere.example"):
            pass
    await before.until('handshakes_refused_total{status="403"}', is_one)


@looks_inside
async def test_engines_as_a_gateway_sees_them() -> None:
    address = free_address()
    with start_gateway(address) as front:
        before = Before(front, GATEWAY)
        assert status(front, "/readyz") == 503
        with start_engine(LISTEN=address):
            await before.until("engines_serving", is_one)
            assert status(front, "/readyz") == 200
        await before.until("engines_serving", lambda by: by == 0)


def test_limits(back: Service, front: Service) -> None:
    """What cannot move is what was set."""
    figures = back.figures() | front.figures()
    for name, value in UNMOVED.items():
        assert figures[name] == value, name


def test_each_has_a_test_that_moves_it(back: Service, front: Service) -> None:
    named = {name.partition("{")[0] for name in back.figures() | front.figures() if name.startswith("runwire_")}
    moved = set(re.findall(r"before\.(?:moved|until)\(f?.(\w+)", Path(__file__).read_text()))
    assert named - {name.partition("{")[0] for name in UNMOVED} <= {
        f"{prefix}{name}" for prefix in (ENGINE, GATEWAY) for name in moved
    }


def status(service: Service, path: str) -> int:
    """Return what an operator's request gets."""
    try:
        with urllib.request.urlopen(f"http://{service.operations}{path}", timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_where_operators_look(back: Service, front: Service) -> None:
    """The public ports have no figures; what is nobody's to choose is somewhere else, and what is chosen stops."""
    assert status(back, "/metrics") == 200
    assert status(back, "/nothing") == 404
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{front.address}/metrics", timeout=PATIENCE)
    request = urllib.request.Request(f"http://{back.operations}/metrics", data=b"x", method="POST")
    with pytest.raises((urllib.error.HTTPError, ConnectionError)):
        urllib.request.urlopen(request, timeout=PATIENCE)
    with start_engine(OPERATIONS_LISTEN=back.operations) as another:
        assert another.wait() == 2
        [line] = another.lines
        assert f"RUNWIRE_ENGINE_OPERATIONS_LISTEN={back.operations}: it is taken" in line
