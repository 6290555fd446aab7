"""Every alert fires: each test breaks what one of them watches, and a real Prometheus sees it."""

import asyncio
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.duration_pb2 import Duration
from websockets.exceptions import ConnectionClosed, InvalidStatus

from engine_service.runs.quota import DONE
from engine_service.runs.refusal import Code
from runwire.calling import NOWHERE
from tests.support.clients import JSON, caller, opening, socket, taken
from tests.support.servers import Prometheus, found, prometheus
from tests.support.services import ROOT, Service, free_address, until, zygote_of
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.valkey import valkey

pytestmark = pytest.mark.operations

PROMETHEUS = ROOT / "deploy" / "prometheus"
[GROUP] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
RULES = {rule["alert"]: rule for rule in GROUP["rules"]}
AGENTS = "tests.agents.probes,tests.agents.models"


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(tmp_path_factory.mktemp("prometheus")) as started:
        yield started


async def watched(watch: Prometheus, alert: str, **services: Service) -> Any:
    """Have an alert watch a service in which all is well; return what waits until it fires."""
    watch.aim(**{kind: service.operations for kind, service in services.items()})
    [service] = services.values()
    expr = RULES[alert]["expr"]
    await asyncio.to_thread(watch.until, f'up{{instance="{service.operations}"}} == 1')
    await asyncio.to_thread(watch.until, expr, is_found=False)

    async def fires() -> None:
        await asyncio.to_thread(watch.until, expr)
        await asyncio.to_thread(watch.until, f'ALERTS{{alertname="{alert}"}}')

    return fires


async def refused(user: Any, agent: str, **fields: Any) -> None:
    with suppress(Exception):
        await user.run(agent, **fields)


async def test_down(watch: Prometheus) -> None:
    with start_engine() as back:
        fires = await watched(watch, "RunwireDown", engine=back)
        back.kill()
        await fires()


async def test_no_engine(watch: Prometheus) -> None:
    address = free_address()
    with start_engine(LISTEN=address) as back, start_gateway(address) as front:
        await asyncio.to_thread(lambda: back.address)
        await until(lambda: front.figures()["runwire_gateway_engines_serving"] == 1)
        fires = await watched(watch, "RunwireNoEngine", gateway=front)
        back.kill()
        await fires()


async def test_runs_fail(watch: Prometheus) -> None:
    with start_engine(agents=AGENTS) as back:
        fires = await watched(watch, "RunwireRunsFail", engine=back)
        async with caller(back.address) as ann:
            for _ in range(4):
                await ann.run("counting", "crash")
                await asyncio.sleep(0.5)
        await fires()


async def test_refuses(watch: Prometheus) -> None:
    with start_engine(MAX_RUNS="1") as back:
        fires = await watched(watch, "RunwireRefuses", engine=back)
        async with caller(back.address) as ann:
            call = ann.call("waiter")
            await taken(call, 2)
            await refused(ann, "echo")
            await fires()
            call.cancel()


async def test_slow_first_events(watch: Prometheus) -> None:
    """As if the machine had no time for births."""
    with start_engine(MAX_SPARES="4") as back:
        fires = await watched(watch, "RunwireSlowFirstEvent", engine=back)
        zygote = zygote_of(back)
        async with caller(back.address) as ann:
            os.kill(zygote, signal.SIGSTOP)
            runs = [asyncio.create_task(refused(ann, "echo")) for _ in range(8)]
            await until(lambda: back.figures()["runwire_engine_runs"] == 8)  # half of them are yet to be born
            await asyncio.sleep(1.5)  # which is slow, and less than what it is given
            os.kill(zygote, signal.SIGCONT)
            await asyncio.gather(*runs)
        await fires()


async def test_zygote_dies(watch: Prometheus) -> None:
    with start_engine() as back:
        fires = await watched(watch, "RunwireZygoteDies", engine=back)
        for number in range(1, 4):
            os.kill(zygote_of(back), signal.SIGKILL)
            await until(lambda number=number: restarts(back) == number)  # type: ignore[misc]
        await fires()


def restarts(back: Service) -> float:
    return back.figures()["runwire_engine_zygote_restarts_total"]


async def test_store_away(watch: Prometheus) -> None:
    with valkey() as server, start_engine(STORE=server.url) as back:
        fires = await watched(watch, "RunwireStoreAway", engine=back)
        server.kill()
        await fires()


async def test_nearly_full(watch: Prometheus) -> None:
    with start_engine(MAX_RUNS="1") as back:
        fires = await watched(watch, "RunwireNearlyFull", engine=back)
        async with caller(back.address) as ann:
            call = ann.call("waiter")
            await taken(call, 2)
            await fires()
            call.cancel()


async def test_journals_nearly_full(watch: Prometheus) -> None:
    with start_engine(RESUME_BUFFER="256KiB", RESUME_MEMORY="256KiB", MAX_EVENT_BYTES="8KiB") as back:
        fires = await watched(watch, "RunwireJournalsNearlyFull", engine=back)
        async with caller(back.address) as ann:
            call = ann.call("flood", run_id=str(uuid.uuid4()), resume_window=Duration(seconds=60))
            await taken(call, 1)
            await fires()
            call.cancel()


async def test_sockets_nearly_full(watch: Prometheus) -> None:
    with start_engine() as back, start_gateway(back.address, MAX_CONNECTIONS="1") as front:
        fires = await watched(watch, "RunwireSocketsNearlyFull", gateway=front)
        async with socket(front.address) as connection:
            await connection.send(opening(JSON, "waiter"))
            await fires()


async def test_descriptors_nearly_gone(watch: Prometheus) -> None:
    limited = ("prlimit", "--nofile=60:60")
    with start_engine() as back, start_gateway(back.address, before=limited) as front:
        fires = await watched(watch, "RunwireDescriptorsNearlyGone", gateway=front)
        async with AsyncExitStack() as stack:
            for number in range(51 - int(front.figures()["process_open_fds"])):
                connection = await stack.enter_async_context(socket(front.address))
                await connection.send(opening(JSON, "waiter", user=f"user{number}"))
            await fires()


async def test_browsers_stall(watch: Prometheus) -> None:
    with start_engine() as back, start_gateway(back.address, STALL_TIMEOUT="1") as front:
        fires = await watched(watch, "RunwireBrowsersStall", gateway=front)
        async with AsyncExitStack() as stack:
            for user in range(40):
                connection = await stack.enter_async_context(socket(front.address, max_queue=1))
                await connection.send(opening(JSON, "flood", user=f"user{user}"))
                connection.transport.pause_reading()
            await fires()


async def test_origins_refused(watch: Prometheus) -> None:
    with start_gateway("127.0.0.1:1") as front:
        fires = await watched(watch, "RunwireOriginsRefused", gateway=front)
        for _ in range(100):
            with pytest.raises((InvalidStatus, ConnectionClosed)):
                async with socket(front.address, origin="https://elsewhere.example"):
                    pass
        await fires()


def test_each_has_a_test() -> None:
    source = Path(__file__).read_text()
    assert set(RULES) == set(re.findall(r'watched\(watch, "(\w+)"', source))


def test_each_has_a_page() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    for rule in RULES.values():
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert path == "docs/runbook.md"
        assert anchor in {heading.lower() for heading in headings}, anchor


def test_each_refusal_is_in_the_runbook() -> None:
    """Whatever reason the engine's code names, and each status besides, is in the table."""
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    code = "\n".join(path.read_text() for path in (ROOT / "engine_service").rglob("*.py"))
    named = set(re.findall(r'(?:too_many|unavailable|forbidden)\([^()]*?"([A-Z_]{6,})"', code))
    named |= {f"TOO_MANY_{what.upper()}_PER_MINUTE" for what in DONE} | {"INTERNAL", NOWHERE} | set(Code.__members__)
    told_otherwise = {"RESOURCE_EXHAUSTED", "UNAVAILABLE", "PERMISSION_DENIED"}  # these always have a reason
    assert len(named) > 20
    assert {name for name in named if f"`{name}`" not in runbook} <= told_otherwise


CHECKS = [
    ("check", "rules", "alerts.yml"),
    ("check", "config", "prometheus.yml"),
    ("test", "rules", "alerts_test.yml"),
]


@pytest.mark.parametrize("command", CHECKS)
def test_durations(command: tuple[str, ...]) -> None:
    """After how long each fires, and not a moment before, by Prometheus' own tool."""
    done = subprocess.run([found("promtool"), *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_has_a_duration() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    for alert in RULES:
        times = [each["exp_alerts"] for test in tests for each in test["alert_rule_test"] if each["alertname"] == alert]
        assert times[0] == [], alert
        assert times[1], alert
