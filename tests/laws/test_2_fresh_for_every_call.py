"""Law 2: fresh for every call, and never used again."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import caller, pid_of, terminal
from tests.support.services import Service, looks_inside, zygote_of
from tests.support.services import engine as start_engine

RUNS = 200


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with start_engine(agents="tests.agents.dirt", MAX_RUNS_PER_USER="50") as started:
        yield started


async def test_nothing_of_a_run_is_found_by_the_next(service: Service) -> None:
    """An agent dirties everything it can reach; 200 runs of two users, in turn and at once, find everything clean."""
    async with caller(service.address, "alice") as alice, caller(service.address, "bob") as bob:
        clean = json.loads(terminal(await alice.run("dirt")).agent_completed.output)
        for turn in range(RUNS // 2):
            user = (alice, bob)[turn % 2]
            assert json.loads(terminal(await user.run("dirt")).agent_completed.output) == clean, turn
        at_once = asyncio.Semaphore(40)

        async def run(turn: int) -> Any:
            async with at_once:
                return json.loads(terminal(await (alice, bob)[turn % 2].run("dirt")).agent_completed.output)

        for found in await asyncio.gather(*(run(turn) for turn in range(RUNS // 2))):
            assert found == clean


async def test_no_process_serves_twice(service: Service) -> None:
    """Each run has a process that no other run has."""
    async with caller(service.address) as alice:
        calls = [alice.call("pid") for _ in range(20)]
        pids = {await pid_of(call) for call in calls}
        for call in calls:
            call.cancel()
    assert len(pids) == 20


async def test_what_task_isolation_shares(service: Service) -> None:
    """In task isolation runs share the module's globals, as documented; contextvars and the object are their own."""
    async with caller(service.address, "alice") as alice, caller(service.address, "bob") as bob:
        first = json.loads(terminal(await alice.run("task_dirt")).agent_completed.output)
        second = json.loads(terminal(await bob.run("task_dirt")).agent_completed.output)
    assert second["shared"] == [*first["shared"], "alice"]
    assert (second["own"], second["object"]) == ("clean", "clean")


def data_of(pid: int) -> int:
    """Return the bytes that the kernel counts as a process's data."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))


async def test_what_a_child_has(service: Service) -> None:
    """A child has its own channel and the standard streams; no setting of the engine; limits; and is not dumpable."""
    async with caller(service.address) as alice:
        seen = json.loads(terminal(await alice.run("look")).agent_completed.output)
    kinds = sorted(entry.partition(":")[2] for entry in seen["descriptors"])
    # Standard input is /dev/null; output and error are one pipe; a socket and a pipe to the engine; its loop has three.
    assert kinds == ["/dev/null", "anon_inode", "pipe", "pipe", "pipe", "socket", "socket", "socket"], seen
    assert seen["environment"] == []
    assert seen["dumpable"] == 0
    assert seen["core"] == [0, 0]
    # What the agents' modules took before it began is there already: a run may have so much more.
    assert seen["data"] == data_of(zygote_of(service)) + 512 * 1024 * 1024
    assert 600 < seen["cpu"] < 600 * 200
    assert 600 < seen["alarm"] < 700
    assert not seen["grpc"]
    assert seen["threads"] == 1
    assert seen["leader"]


@looks_inside
def test_the_engine_imports_no_agents_of_its_own(engine: Service) -> None:
    """The engine's process holds no agent module, unless one of its agents asks for `task`."""
    assert "_sqlite3" not in maps(engine.pid)  # triage's knowledge base would have brought it
    assert "_sqlite3" in maps(zygote_of(engine))


@looks_inside
def test_the_zygote_has_no_grpc(engine: Service) -> None:
    """The zygote, from which children are forked, has never seen gRPC."""
    assert "grpc" in maps(engine.pid)
    assert "grpc" not in maps(zygote_of(engine))


def maps(pid: int) -> str:
    """Return what a process has mapped: its compiled modules among it."""
    return Path(f"/proc/{pid}/maps").read_text()


def test_the_engine_is_not_dumpable(engine: Service) -> None:
    """No process of the engine's user, and so no agent, can read its memory or its environment, where keys may be."""
    probe = (
        "import asyncio, ctypes, signal; from runwire.service import kernel;"
        "kernel.configure(); assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)
    assert Path(f"/proc/{engine.pid}/environ").stat().st_uid == 0  # what is not dumpable is root's, whoever runs it
