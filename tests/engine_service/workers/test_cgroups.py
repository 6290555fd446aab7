"""A run's cgroup, where they were delegated.

The kernel's files are stood in for by plain ones: which machines give a test the memory controller is not ours to say.
"""

import os
from pathlib import Path

import pytest

from engine_service.workers.cgroups import Cgroups


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc/self whose cgroup is a plain folder."""
    home = tmp_path / "cgroup" / "ours"
    home.mkdir(parents=True)
    (home / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.procs").touch()
    (tmp_path / "mounts").write_text(f"tmpfs /tmp tmpfs rw 0 0\ncgroup2 {tmp_path}/cgroup cgroup2 rw 0 0\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cgroup").write_text("4:memory:/elsewhere\n0::/ours\n")
    (tmp_path / "mounts").rename(tmp_path / "proc" / "mounts")
    return tmp_path / "proc"


def delegate(proc: Path) -> Path:
    home = proc.parent / "cgroup" / "ours"
    try:
        os.setxattr(home, "user.delegate", b"1")
    except OSError:
        pytest.skip("extended attributes cannot be had on this machine")
    return home


def home_of(home: Path) -> Path:
    """Return the cgroup of the one user that there is."""
    [user] = home.glob("user-*")
    return user


def test_nothing_was_delegated(proc: Path) -> None:
    """A cgroup that nobody left to us stays as it is, also for root."""
    if os.geteuid() == 0:
        assert Cgroups.delegated(1024, 3, proc) is None
        assert not (proc.parent / "cgroup" / "ours" / "engine").exists()
    assert Cgroups.delegated(1024, 3, proc.parent / "nothing") is None


def test_a_run_has_its_own(proc: Path) -> None:
    """The engine moves into a leaf; a run's process gets a cgroup with its limit, which goes with it."""
    home = delegate(proc)
    cgroups = Cgroups.delegated(1024, 3, proc)
    assert cgroups
    assert (home / "engine" / "cgroup.procs").read_text() == str(os.getpid())
    assert (home / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    cgroups.enclose(4711, "alice")
    run = home_of(home) / "run-4711"
    assert (run / "memory.max").read_text() == "1024"
    assert (run / "memory.oom.group").read_text() == "1"
    assert (run / "cgroup.procs").read_text() == "4711"
    assert (run / "pids.max").read_text() == "256"
    assert (run.parent / "memory.max").read_text() == "3072"
    assert (run.parent / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_users_are_apart(proc: Path) -> None:
    """Runs of one user are together, in a cgroup whose name does not tell who they are, and others' are elsewhere."""
    home = delegate(proc)
    cgroups = Cgroups.delegated(1024, 3, proc)
    assert cgroups
    for pid, user in ((1, "alice"), (2, "../bob"), (3, "alice")):
        cgroups.enclose(pid, user)
    found = {path.name: path.parent for path in home.glob("user-*/run-*")}
    assert found["run-1"] == found["run-3"] != found["run-2"]
    assert "alice" not in str(found)


@pytest.mark.parametrize(("events", "is_out"), [("oom 1\noom_kill 1\n", True), ("oom 0\noom_kill 0\n", False)])
def test_who_was_ended_for_their_memory(proc: Path, events: str, is_out: object) -> None:
    """The kernel says whom it ended."""
    home = delegate(proc)
    cgroups = Cgroups.delegated(1024, 3, proc)
    assert cgroups
    cgroups.enclose(4711, "alice")
    (home_of(home) / "run-4711" / "memory.events").write_text(events)
    assert cgroups.release(4711) is is_out
    assert cgroups.release(4712) is False


def test_a_controller_that_is_not_ours(proc: Path) -> None:
    """Where controllers are elsewhere, there is nothing to use; where one is ours, that is used."""
    home = delegate(proc)
    (home / "cgroup.controllers").write_text("hugetlb\n")
    assert Cgroups.delegated(1024, 3, proc) is None
