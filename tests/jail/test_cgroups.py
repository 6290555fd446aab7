"""What the kernel bounds of a run as a whole, where cgroups were delegated: for real, where this machine has them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jail.conftest import AGENTS, number, tried
from tests.support.clients import caller, kind
from tests.support.services import MISSING, Service, until
from tests.support.services import engine as start_engine


def _mount() -> Path | None:
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return next((Path(where) for _, where, sort, *_ in mounts if sort == "cgroup2"), None)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A cgroup that is delegated, as systemd does it."""
    mount = _mount()
    if mount is None or os.geteuid() != 0 or "pids" not in (mount / "cgroup.controllers").read_text().split():
        pytest.skip("a cgroup (version 2) that counts processes" + MISSING)
    given = (mount / "cgroup.controllers").read_text().split()
    wanted = [each for each in ("memory", "pids", "cpu") if each in given]
    (mount / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in wanted))
    made = mount / "runwire-test"
    made.mkdir()
    os.setxattr(made, "trusted.delegate", b"1")
    yield made
    for folder in (*made.glob("*/*/"), *made.glob("*/"), made):
        folder.rmdir()


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Service]:
    inside = ["sh", "-c", f'echo $$ > {home}/cgroup.procs; exec "$@"', "sh"]
    with start_engine(agents=AGENTS, before=inside) as started:
        yield started


def runs_in(home: Path) -> list[Path]:
    return list(home.glob("user-*/run-*"))


async def test_a_run_is_counted(service: Service, home: Path) -> None:
    """While it goes on, it is in a cgroup of its own, below its user's; afterwards there is neither."""
    assert service.wait_for(lambda record: record["event"] == "serving")["cgroups"]
    assert "processes" in service.wait_for(lambda record: record["event"] == "the jail is closed")["holds"]
    async with caller(service.address) as alice:
        call = alice.call("prisoner", "stay 60")
        async for response in call:
            if any(kind(event) == "agent_reported" for event in response.events):
                break
        [run] = runs_in(home)
        assert (run / "pids.max").read_text().strip() == "256"
        assert (run.parent / "pids.max").read_text().strip() == str(8 * 256)
        assert (run / "cgroup.procs").read_text().strip() == run.name.removeprefix("run-")
        call.cancel()
    await until(lambda: not runs_in(home))


@pytest.mark.parametrize("agent", ["prisoner", "free"])
async def test_forks_are_bounded(service: Service, agent: str) -> None:
    """A run starts 256 processes, in a jail and without, and no more."""
    async with caller(service.address) as alice:
        assert 100 < number(await tried(alice, "fork_without_end", agent)) <= 256
