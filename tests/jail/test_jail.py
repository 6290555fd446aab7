"""The jail: which layers there are, for whom, and what is left of it."""

import json
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from runwire.v1.engine_pb2 import ListAgentsRequest

from engine_service.testing import run
from scripts import seccomp_profile
from tests.agents.keeping import Keeping
from tests.jail.conftest import AGENTS, House, number, told, tried
from tests.support import contained, visible
from tests.support.clients import caller, kind, terminal
from tests.support.services import Service, is_gone, looks_inside, until, zygotes_of
from tests.support.services import engine as start_engine

WITHOUT_NAMESPACES = [
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"',
    "sh",
]
"""What to put before a command, so that it may make no user namespaces, as on machines that forbid it."""
NOBODY = [*visible.command(), "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
"""What root puts before a command, so that somebody without any rights starts it."""
FEWER = "files,syscalls,environment,capabilities"

no_unshare = pytest.mark.skipif(not shutil.which("unshare"), reason="unshare cannot be had on this machine")


@pytest.fixture(scope="module")
def keeping() -> Iterator[Service]:
    with start_engine(agents="tests.agents.keeping", DEMO_AGENTS="false") as service:
        yield service


@no_unshare
def test_what_must_not_be_missing() -> None:
    """Where a layer cannot be had that is required, the engine doesn't start, and says which, and why."""
    with start_engine(agents=AGENTS, before=WITHOUT_NAMESPACES) as service:
        assert service.wait() == 2
        [line] = service.lines
        assert "the jail cannot be closed, for want of network (" in line
        assert "JAIL_REQUIRE" in line


@no_unshare
async def test_what_may_be_missing() -> None:
    """What isn't required may be missing: it is said at boot, and the other layers hold."""
    with start_engine(agents=AGENTS, before=WITHOUT_NAMESPACES, JAIL_REQUIRE=FEWER) as service:
        closed = service.wait_for(lambda record: record["event"] == "the jail is closed")
        assert closed["missing"].keys() - {"cgroups"} == {"network", "disk"}
        async with caller(service.address) as alice:
            for what in (
                "read /etc/passwd",
                f"tcp {service.address}",
                "change_mode Makefile",
                "write /tmp/mine",
                f"environment {service.pid}",
                "family 1 1 0",
                "capabilities",
                f"send_signal {service.pid}",
                "unshare 268435456",
            ):
                assert (await tried(alice, what)).startswith("denied: "), what
            assert told(await tried(alice, "own_folder"))[0] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make agents another user")
async def test_agents_of_another_user() -> None:
    """Of root's engine, agents in a jail are who RUN_AS says, besides."""
    with start_engine(agents=AGENTS, RUN_AS="nobody", before=visible.command()) as service:
        async with caller(service.address) as alice:
            assert service.wait_for(lambda record: record["event"] == "the jail is closed")["missing"].keys() <= {
                "cgroups"
            }
            for what in ("read /etc/shadow", "write /tmp/mine", "become 0", "capabilities", f"tcp {service.address}"):
                assert (await tried(alice, what)).startswith("denied: "), what
            assert told(await tried(alice, "own_folder"))[0] == []
            assert number(await tried(alice, "fork_without_end")) <= 256
            assert (await tried(alice, "write /tmp/of-nobody", "free")).startswith("got: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="it is root who can be another user")
async def test_an_engine_that_is_not_roots() -> None:
    """All of it holds for an engine without any rights of its own."""
    with start_engine(agents=AGENTS, before=NOBODY) as service:
        async with caller(service.address) as alice:
            closed = service.wait_for(lambda record: record["event"] == "the jail is closed")
            assert closed["missing"].keys() <= {"cgroups"}
            for what in ("read /etc/passwd", "write /tmp/mine", "capabilities", f"environment {service.pid}", "mount"):
                assert (await tried(alice, what)).startswith("denied: "), what
            assert number(await tried(alice, "fork_without_end")) <= 256
            assert number(await tried(alice, "fill_disk")) <= 64


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are of another machine")
async def test_in_a_container() -> None:
    """All of it holds for who isn't root, without capabilities, under the profile that deploy/ ships for containers."""
    before = [*(NOBODY if os.geteuid() == 0 else []), *contained.command()]
    with start_engine(agents=AGENTS, before=before) as service:
        closed = service.wait_for(lambda record: record["event"] == "the jail is closed")
        assert closed["missing"].keys() <= {"cgroups"}
        async with caller(service.address) as alice:
            for what in ("read /etc/passwd", f"tcp {service.address}", "capabilities", "change_mode Makefile", "mount"):
                assert (await tried(alice, what)).startswith("denied: "), what
            assert number(await tried(alice, "fill_disk")) <= 64
            assert number(await tried(alice, "fork_without_end")) <= 256


def test_the_profile_is_as_the_code_says() -> None:
    """What deploy/ ships is what the jail allows, and what the engine needs besides: scripts/seccomp_profile.py."""
    assert json.loads(contained.PROFILE.read_text()) == seccomp_profile.profile()


async def test_for_all() -> None:
    """ISOLATION=jail is for all that don't say: the built-in agents, and functions; who says otherwise is elsewhere."""
    agents = "tests.agents.keeping,tests.agents.probes"
    with start_engine(agents=agents, ISOLATION="jail", DEMO_AGENTS="true", ASSISTANT_MODEL="m") as service:
        async with caller(service.address) as alice:
            listed = await alice.stub.ListAgents(ListAgentsRequest(), metadata=alice.metadata)
            about = {agent.name: agent.isolation for agent in listed.agents}
            assert about["triage"] == about["echo"] == about["assistant"] == about["keeping_in_jail"] == "jail"
            assert about["keeping"] == "process"
            assert about["keeping_as_task"] == "task"
            assert terminal(await alice.run("triage", "The site is slow")).agent_completed.output
        free = service.wait_for(lambda record: record["event"].startswith("agents that are in no jail"))
        assert free["agents"] == ["delegating", "keeping", "keeping_as_task"]


@pytest.mark.parametrize("agent", ["keeping", "keeping_as_task", "keeping_in_jail", "afresh"])
async def test_files(keeping: Service, agent: str) -> None:
    """A run has a folder of its own, empty at first, and gone with it."""
    async with caller(keeping.address) as alice:
        folders = [Path(terminal(await alice.run(agent, "words")).agent_completed.output) for _ in range(3)]
    assert len(set(folders)) == 3
    for folder in folders:
        await until(lambda folder=folder: not folder.exists())  # type: ignore[misc]


@pytest.mark.parametrize("agent", ["keeping", "keeping_in_jail", "afresh"])
async def test_files_of_one_that_dies(keeping: Service, agent: str) -> None:
    """However a run ends, its folder goes with it."""
    async with caller(keeping.address) as alice:
        assert kind(terminal(await alice.run(agent, "die"))) == "agent_failed"
    home = Path("/proc") / str(zygotes_of(keeping)[0]) / "root" / "tmp"
    await until(lambda: not any(path.is_dir() for path in home.glob("runwire-*/*/kept")))


async def test_files_in_a_test() -> None:
    """An author's test has one, too."""
    ran = await run(Keeping, "words")
    assert ran.output
    await until(lambda: not Path(ran.output).exists())


async def test_who_can_be_delegated_to(keeping: Service) -> None:
    """A run in no jail cannot hand on to an agent that belongs in one; in a jail, all are in it."""
    async with caller(keeping.address) as alice:
        assert "keeping_in_jail" in terminal(await alice.run("delegating", "keeping_in_jail")).agent_completed.output
        assert terminal(await alice.run("delegating", "keeping_in_jail")).agent_completed.output.startswith(
            "LookupError"
        )
        assert terminal(await alice.run("delegating", "keeping")).agent_completed.output
        assert "runwire-" in terminal(await alice.run("letting", "keeping")).agent_completed.output


@looks_inside
async def test_modules_of_a_jail_are_in_no_other_zygote(tmp_path: Path) -> None:
    """Where runs are forked that are in no jail, nothing is imported that belongs in one."""
    (tmp_path / "jailed.py").write_text(
        'import sqlite3\nfrom engine_service import Agent\nclass Jailed(Agent):\n    isolation = "jail"\n'
        "    async def run(self, context, input):\n        return input\n"
    )
    with start_engine(agents="tests.agents.who,jailed", DEMO_AGENTS="false", folder=str(tmp_path)) as service:
        async with caller(service.address) as alice:
            assert terminal(await alice.run("jailed", "words")).agent_completed.output == "words"
        assert sorted("_sqlite3" in maps(pid) for pid in zygotes_of(service)) == [False, True]


def maps(pid: int) -> str:
    """Return what a process has mapped: its compiled modules among it."""
    return Path(f"/proc/{pid}/maps").read_text()


async def test_nothing_is_left(house: House) -> None:
    """An engine that is killed leaves no process of its own: no zygote, no keeper, no broker, no run."""
    with start_engine(agents=AGENTS, UPSTREAMS=f"openai={house.server.url}") as service:
        async with caller(service.address) as alice:
            call = alice.call("prisoner", "stay 60")
            await begun(call)
            pids = [child.pid for child in psutil.Process(service.pid).children(recursive=True)]
            assert len(pids) > 8
            service.kill()
            call.cancel()
        for pid in pids:
            await until(lambda pid=pid: is_gone(pid))  # type: ignore[misc]


async def begun(call: Any) -> None:
    """Wait until a run has told something."""
    async for response in call:
        if any(kind(event) == "agent_reported" for event in response.events):
            return


def test_what_engines_have_left() -> None:
    """Where an engine was killed, the next one takes away what it left; and nothing that is somebody's."""
    with start_engine() as living:
        assert living.address
        left = Path(tempfile.mkdtemp(prefix="runwire-engine-"))
        (left / "runs").mkdir()
        with start_engine() as service:
            assert service.address
            assert not left.exists()
        [held] = [
            path for path in Path(f"/proc/{living.pid}/fd").iterdir() if "runwire-engine-" in str(path.readlink())
        ]
        assert "deleted" not in str(held.readlink())


async def test_a_zygote_of_a_jail_that_dies() -> None:
    """Another takes its place, with a jail of its own."""
    with start_engine(agents=AGENTS, DEMO_AGENTS="false") as service:
        async with caller(service.address) as alice:
            *_, jail, _ = told(await tried(alice, "who"))
            psutil.Process(jail).kill()
            service.wait_for(lambda record: record["event"] == "the zygote died")
            await until(lambda: len([r for r in service.records if r.get("event") == "the jail is closed"]) == 2)
            await until(lambda: http_status_at(service.operations, "/readyz") == OK)
            assert (await tried(alice, "read /etc/passwd")).startswith("denied: ")


OK = 200


def http_status_at(address: str, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
