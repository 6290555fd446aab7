"""Law 9: a run's process holds nothing but its wire."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from tests.agents.searching import KNOWN
from tests.support.clients import caller, terminal
from tests.support.services import Service, looks_inside, zygote_of
from tests.support.services import engine as start_engine

SECRET = "a secret that tokens are signed with, and no agent ever sees"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with start_engine(agents="tests.agents.dirt") as started:
        yield started


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


@looks_inside
async def test_no_key_and_no_token_is_in_its_memory() -> None:
    """A run's process has neither the secret that tokens are signed with nor the token of whoever asked for it."""
    token = jwt.encode({"sub": "alice", "exp": time.time() + 600}, SECRET, algorithm="HS256")
    with start_engine(agents="tests.agents.searching", JWT_SECRET=SECRET) as guarded:
        async with caller(guarded.address) as alice:
            alice.metadata = (("authorization", f"Bearer {token}"),)

            async def has(text: str) -> str:
                return terminal(await alice.run("searching", text[::-1])).agent_completed.output

            assert await has(KNOWN) == "True"
            assert await has(SECRET) == "False"
            assert await has(token[-40:]) == "False"


async def test_what_another_run_said_and_was_asked() -> None:
    """A run's process has nothing of what another was asked, be it before or beside it."""
    with start_engine(agents="tests.agents.searching,tests.agents.probes") as both:
        async with caller(both.address) as alice, caller(both.address, "bob") as bob:
            asked = "what alice asks is hers, and nobody else's business"
            beside = bob.call("flood", input=asked)  # which goes on
            await beside.read()
            terminal(await bob.run("echo", asked))
            assert terminal(await alice.run("searching", asked[::-1])).agent_completed.output == "False"
            beside.cancel()
