"""What agents want of a cluster, and are given; and what stops the boot."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from google.protobuf.json_format import MessageToDict
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import ListAgentsRequest

from tests.laws.test_9_nothing_but_its_wire import maps
from tests.support.clients import caller, terminal
from tests.support.cluster import Cluster
from tests.support.services import Service, free_address, until, zygotes_of
from tests.support.services import engine as start_engine
from tests.support.times import UNIT

pytestmark = pytest.mark.ray

AGENTS = "tests.agents.placed"


@pytest.fixture(scope="module")
def service(cluster: Cluster) -> Iterator[Service]:
    with cluster.engine(agents=AGENTS, ISOLATION="process") as started:
        yield started


async def test_what_a_run_is_given(service: Service) -> None:
    """A run has its part of a GPU, what its class says of its environment, its folder, and no Ray in its process."""
    async with caller(service.address) as alice:
        completed = terminal(await alice.run("placed")).agent_completed
        given: dict[str, Any] = MessageToDict(completed.data)
        assert given["gpus"] == "0"
        assert given["given"] == "given"
        assert given["has_ray"] is False
        await until(lambda: not Path(given["files"]).exists())
        assert [(each.model, each.input_tokens) for each in completed.usage.models] == [("a-model", 3)]


async def test_fractions(service: Service) -> None:
    """Four runs have a quarter of one GPU each; the fifth waits, quietly, and has its turn."""
    async with caller(service.address) as alice:
        runs = await asyncio.gather(*(alice.run("placed") for _ in range(5)))
    assert {terminal(events).agent_completed.output for events in runs} == {"placed"}


async def test_no_place(service: Service) -> None:
    """A run that waits for what there is not ends when its time is over; an operator was told at boot."""
    lacking = service.wait_for(lambda record: record["event"].startswith("no node of the cluster has"))
    assert (lacking["agent"], lacking["level"]) == ("demanding", "warning")
    async with caller(service.address) as alice:
        call = alice.call("demanding", timeout=2 * UNIT)
        [event] = [event async for response in call for event in response.events]
    assert event.agent_failed.reason == pb.FAILURE_REASON_TIMEOUT


async def test_started_afresh(service: Service) -> None:
    """An agent whose module cannot be forked is started afresh, there as here."""
    async with caller(service.address) as alice:
        assert terminal(await alice.run("apart")).agent_completed.output == "apart"


async def test_sub_agents(service: Service) -> None:
    """An agent on the cluster delegates to its like; one at home doesn't, since it hasn't what that would need."""
    async with caller(service.address) as alice:
        assert terminal(await alice.run("head")).agent_completed.output == "placed"
        assert terminal(await alice.run("asker")).agent_failed.reason == pb.FAILURE_REASON_AGENT_ERROR
    service.wait_for(lambda record: "there is no agent named 'placed'" in record.get("traceback", ""))


async def test_an_agent_that_uses_the_cluster(service: Service) -> None:
    """An agent has tasks of its own on the cluster that it is on."""
    async with caller(service.address) as alice:
        assert terminal(await alice.run("fanning")).agent_completed.output == "12"


async def test_only_the_driver_has_ray(service: Service) -> None:
    """The engine and its zygote have nothing of Ray's in them; the driver has nothing of the engine's settings."""
    assert service.address
    children = psutil.Process(service.pid).children()
    [driver] = [child for child in children if "engine_service.cluster" in child.cmdline()]
    assert "_raylet" in maps(driver.pid)
    assert not any("_raylet" in maps(pid) for pid in (service.pid, *zygotes_of(service)))
    assert not [name for name in driver.environ() if name.startswith("RUNWIRE_")]


async def test_callers_see_where(service: Service) -> None:
    """Callers see which agents run on a cluster, as they see of others where they do."""
    async with caller(service.address) as alice:
        listed = await alice.stub.ListAgents(ListAgentsRequest(), metadata=alice.metadata)
    isolations = {agent.name: agent.isolation for agent in listed.agents}
    assert (isolations["placed"], isolations["asker"]) == ("ray", "process")


def test_a_cluster_that_is_not_there() -> None:
    """A cluster where nobody answers: no boot, and which it is."""
    address = free_address()
    with start_engine(agents=AGENTS, RAY_ADDRESS=address) as service:
        assert service.wait(patience=60 * UNIT) == 2
        assert any(f"RAY_ADDRESS={address}: the cluster cannot be had" in line for line in service.lines)


def test_what_is_not_there_is_found_at_boot(cluster: Cluster, tmp_path: Path) -> None:
    """A module that is here and not on the cluster's nodes stops the boot: it would be found late."""
    (tmp_path / "athome.py").write_text(
        'from engine_service import Agent\nclass Away(Agent):\n    isolation = "ray"\n'
        "    async def run(self, context, input):\n        return ''\n"
    )
    settings = {"RAY_ADDRESS": cluster.address, "folder": str(tmp_path)}
    with start_engine(agents="athome", **settings) as service:
        assert service.wait(patience=60 * UNIT) != 0
        assert any("runs of 'away' get nowhere" in line and "no module 'athome'" in line for line in service.lines)


async def test_it_brings_its_module_along(cluster: Cluster, tmp_path: Path) -> None:
    """With a runtime environment, nodes have a module that is not installed there."""
    (tmp_path / "athome.py").write_text(
        'from engine_service import Agent\nclass Away(Agent):\n    isolation = "ray"\n'
        "    async def run(self, context, input):\n        return 'brought along'\n"
    )
    environment = f'{{"working_dir": "{tmp_path}"}}'
    settings = {"RAY_ADDRESS": cluster.address, "folder": str(tmp_path), "RAY_RUNTIME_ENV": environment}
    with start_engine(agents="athome", **settings) as service:
        async with caller(service.address) as alice:
            assert terminal(await alice.run("away")).agent_completed.output == "brought along"


@pytest.mark.parametrize("resources", ["{'resources': {'CPU': 1}}", "{'num_gpus': 1.5}", "{'runtime_env': {'pip': 3}}"])
def test_what_ray_refuses_stops_the_boot(cluster: Cluster, tmp_path: Path, resources: str) -> None:
    """Resources that Ray would not take from anybody are found at boot, and told in its words."""
    (tmp_path / "wanting.py").write_text(
        f"from engine_service import Agent\nclass Wanting(Agent):\n    isolation = 'ray'\n    resources = {resources}\n"
        "    async def run(self, context, input):\n        return ''\n"
    )
    environment = f'{{"working_dir": "{tmp_path}"}}'
    settings = {"RAY_ADDRESS": cluster.address, "folder": str(tmp_path), "RAY_RUNTIME_ENV": environment}
    with start_engine(agents="wanting", **settings) as service:
        assert service.wait(patience=60 * UNIT) == 2
        assert any("runs of 'wanting' get nowhere" in line and "Error" in line for line in service.lines)


async def test_it_prints_what_it_likes(service: Service) -> None:
    """What is long when it is written down harms nobody: it is logged."""
    async with caller(service.address) as alice:
        assert terminal(await alice.run("chattering")).agent_completed.output == "said"
    service.wait_for(lambda record: "😀" * 1000 in record.get("text", ""))
