"""Agents are used anew when their files change, if that is asked for."""

from pathlib import Path

import grpc.aio
import pytest

from tests.support.clients import caller, said, terminal
from tests.support.services import Service, is_gone, until, zygote_of
from tests.support.services import engine as start_engine

AGENT = """
import asyncio
from engine_service import Agent

class Young(Agent):
    async def run(self, context, input):
        await context.say("{word}")
        if input == "wait":
            await asyncio.sleep(3600)
        return "{word}"
"""


def reloaded(service: Service, times: int) -> bool:
    return sum("agents reloaded" in record.get("event", "") for record in service.records) == times


async def test_reload(tmp_path: Path) -> None:
    """With `--reload` new runs have the new agents; others keep theirs, and their zygote ends with the last of them."""
    module = tmp_path / "young.py"
    module.write_text(AGENT.format(word="one"))
    with start_engine("--reload", agents="young", folder=str(tmp_path)) as service:
        async with caller(service.address) as alice:
            old = zygote_of(service)
            waiting = alice.call("young", "wait")
            assert await said(waiting) == "one"

            module.write_text(AGENT.format(word="two, which is longer"))
            await until(lambda: reloaded(service, 1))
            assert terminal(await alice.run("young")).agent_completed.output == "two, which is longer"
            assert not is_gone(old)
            waiting.cancel()
            await until(lambda: is_gone(old))

            module.write_text("this is no Python")
            service.wait_for(lambda record: record["event"] == "agents not reloaded")
            assert terminal(await alice.run("young")).agent_completed.output == "two, which is longer"


async def test_tasks_are_not_reloaded(tmp_path: Path) -> None:
    """Agents that share the engine's process stay as they were at the boot, and the log says so."""
    module = tmp_path / "young.py"
    task = AGENT.replace("class Young(Agent):", 'class Old(Agent):\n    isolation = "task"\n')
    module.write_text(task.format(word="one") + AGENT.format(word="one"))
    with start_engine("--reload", agents="young", folder=str(tmp_path)) as service:
        async with caller(service.address) as alice:
            module.write_text(task.replace("Old", "New").format(word="two") + AGENT.format(word="two"))
            await until(lambda: reloaded(service, 1))
            assert terminal(await alice.run("young")).agent_completed.output == "two"
            assert terminal(await alice.run("old")).agent_completed.output == "one"
            with pytest.raises(grpc.aio.AioRpcError, match="no agent named 'new'"):
                await alice.run("new")
    service.wait_for(lambda record: record["event"] == "agents in task isolation stay as they were at the boot")
