"""An engine with a jail, a broker, and a model server that says what its script says."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from tests.support.clients import Caller, caller, kind, terminal
from tests.support.model_server import ModelServer, model_server
from tests.support.services import Service, zygotes_of
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway

KEY = "sk-a-key-that-no-run-ever-has"
AGENTS = "tests.agents.prisoners"


class House(NamedTuple):
    """All that a prisoner can reach for."""

    engine: Service
    gateway: Service
    server: ModelServer
    victim: int
    """A process of the engine's user, that is nobody's."""
    folder: Path
    """A folder outside, which the engine's user may write to."""

    @property
    def broker(self) -> int:
        return broker_of(self.engine)

    @property
    def zygotes(self) -> list[int]:
        return zygotes_of(self.engine)


def broker_of(engine: Service) -> int:
    """Return the process that carries an engine's runs' calls."""
    [broker] = [child for child in psutil.Process(engine.pid).children() if "engine_service.broker" in child.cmdline()]
    return broker.pid


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("outside")
    key = folder / "openai.key"
    key.write_text(KEY)
    (folder / "secret").write_text("a secret of the engine's")
    settings = {
        "AGENTS": AGENTS,
        "UPSTREAM_KEYS": f"openai={key}",
        "JAIL_DISK": str(16 * 1024 * 1024),
        "MAX_RUNS_PER_USER": "64",
        "RUN_TIMEOUT": "60",
    }
    with model_server() as server, start_engine(UPSTREAMS=f"openai={server.url}", **settings) as engine:
        victim = subprocess.Popen(["sleep", "3600"])
        try:
            with start_gateway(engine.address) as gateway:
                assert gateway.address, "it serves"
                yield House(engine, gateway, server, victim.pid, folder)
        finally:
            victim.kill()
            victim.wait()


@pytest.fixture
async def alice(house: House) -> AsyncIterator[Caller]:
    async with caller(house.engine.address) as user:
        yield user


@pytest.fixture
async def bob(house: House) -> AsyncIterator[Caller]:
    async with caller(house.engine.address, "bob") as user:
        yield user


Tries = Callable[..., Awaitable[str]]


async def tried(user: Caller, what: str, agent: str = "prisoner") -> str:
    """Try something, and return what came of it."""
    end = terminal(await user.run(agent, what))
    assert kind(end) == "agent_completed", end
    return end.agent_completed.output


class Sibling(NamedTuple):
    """A run of somebody else's, which goes on meanwhile."""

    pid: int
    folder: str


@pytest.fixture
async def sibling(bob: Caller) -> AsyncIterator[Sibling]:
    call = bob.call("prisoner", "stay 30")
    try:
        async for response in call:
            for event in response.events:
                if kind(event) == "agent_reported":
                    about: Any = dict(event.agent_reported.data.items())
                    yield Sibling(int(about["pid"]), about["folder"])
                    return
    finally:
        call.cancel()
        await asyncio.sleep(0)


def told(output: str) -> Any:
    """Return what an attempt got, of one that tells it as JSON."""
    assert output.startswith("got: "), output
    return json.loads(output.removeprefix("got: "))


def number(output: str) -> int:
    """Return how far an attempt got."""
    found = re.match(r"got: (\d+)", output)
    assert found, output
    return int(found[1])
