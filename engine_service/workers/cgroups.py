"""A run's memory as the kernel counts it, where cgroups (version 2) were delegated to us.

Below the limit that each process has by itself, this one holds for a run with all that it starts and maps.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import structlog

PROC = Path("/proc/self")
DELEGATED = ("user.delegate", "trusted.delegate")
"""What systemd writes on a cgroup that it leaves to a service."""


class Cgroups:
    """Puts each run's process into a cgroup of its own."""

    def __init__(self, home: Path, memory: int) -> None:
        self._home = home
        self._memory = memory

    @classmethod
    def delegated(cls, memory: int, proc: Path = PROC) -> Self | None:
        """Take over what was delegated to us; None where nothing was, or where others are in it."""
        home = _home(proc)
        if home is None or not _is_ours(home):
            return None
        try:
            if "memory" not in (home / "cgroup.controllers").read_text().split():
                return None
            ours = home / "engine"  # processes may be in leaves alone
            ours.mkdir(exist_ok=True)
            (ours / "cgroup.procs").write_text(str(os.getpid()))
            (home / "cgroup.subtree_control").write_text("+memory")
        except OSError as error:
            structlog.get_logger().warning("the cgroup that is ours cannot be used", error=str(error))
            return None
        return cls(home, memory)

    def enclose(self, pid: int) -> None:
        """Bound a process, and whatever it will start. Its run has not begun yet."""
        folder = self._folder(pid)
        with suppress(OSError):  # the process died, or we have no descriptors: its own limit still holds
            with suppress(FileNotFoundError):
                folder.rmdir()  # of another who had this number, and whose end nobody saw
            folder.mkdir()
            for name, value in (("memory.max", self._memory), ("memory.swap.max", 0), ("memory.oom.group", 1)):
                with suppress(FileNotFoundError):  # a kernel without swap has no such file
                    (folder / name).write_text(str(value))
            (folder / "cgroup.procs").write_text(str(pid))

    def release(self, pid: int) -> bool:
        """Let go of a process that has ended, and tell whether the kernel ended it for its memory."""
        folder = self._folder(pid)
        events = ""
        with suppress(OSError):
            events = (folder / "memory.events").read_text()
        with suppress(OSError):
            folder.rmdir()
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in events.splitlines())

    def _folder(self, pid: int) -> Path:
        return self._home / f"run-{pid}"


def _home(proc: Path) -> Path | None:
    """Return where our cgroup is."""
    with suppress(OSError):
        path = next((line[3:] for line in (proc / "cgroup").read_text().splitlines() if line.startswith("0::")), None)
        mount = next(_mounts(proc), None)
        return mount / path.lstrip("/") if mount and path else None
    return None


def _mounts(proc: Path) -> Iterator[Path]:
    for line in (proc / "mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            yield Path(where)


def _is_ours(home: Path) -> bool:
    """Tell whether our cgroup was left to us: it says so, or it belongs to a user who isn't root."""
    for name in DELEGATED:
        with suppress(OSError):
            if os.getxattr(home, name) == b"1":
                return True
    with suppress(OSError):
        return home.stat().st_uid == os.geteuid() != 0
    return False
