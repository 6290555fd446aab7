"""What the kernel counts of a run, with all that it starts, where cgroups (version 2) were delegated to us.

Below the limits that each process has by itself, these hold for a run as a whole: its memory, and its processes. What
belongs to one user is together in one, which shares the processors with others' alike, however many runs it has.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import structlog

from engine_service.wire import PROCESSES

PROC = Path("/proc/self")
DELEGATED = ("user.delegate", "trusted.delegate")
"""What systemd writes on a cgroup that it leaves to a service."""
CONTROLLERS = {"memory": "memory", "pids": "processes", "cpu": "processors"}
"""What is ours to bound, by what the kernel calls it."""
Limits = dict[str, int]


class Cgroups:
    """Puts each run's process into a cgroup of its own, below one of its user's."""

    def __init__(self, home: Path, controllers: tuple[str, ...], memory: int, runs: int) -> None:
        self._home = home
        self._controllers = controllers
        self._of_run: Limits = {
            "memory.max": memory,
            "memory.swap.max": 0,
            "memory.oom.group": 1,
            "pids.max": PROCESSES,
        }
        self._of_user: Limits = {"memory.max": runs * memory, "pids.max": runs * PROCESSES}
        self._folders: dict[int, Path] = {}

    @classmethod
    def delegated(cls, memory: int, runs: int, proc: Path = PROC) -> Self | None:
        """Take over what was delegated to us; None where nothing was, or where others are in it.

        A run may have so much memory, and a user so many runs.
        """
        home = _home(proc)
        if home is None or not _is_ours(home):
            return None
        try:
            found = (home / "cgroup.controllers").read_text().split()
            controllers = tuple(each for each in CONTROLLERS if each in found)
            if not controllers:
                return None
            ours = home / "engine"  # processes may be in leaves alone
            ours.mkdir(exist_ok=True)
            (ours / "cgroup.procs").write_text(str(os.getpid()))
            _hand_down(home, controllers)
        except OSError as error:
            structlog.get_logger().warning("the cgroup that is ours cannot be used", error=str(error))
            return None
        return cls(home, controllers, memory, runs)

    @property
    def layers(self) -> list[str]:
        """What is bounded, in a word each."""
        return [CONTROLLERS[each] for each in self._controllers]

    def enclose(self, pid: int, pays: str) -> None:
        """Bound a process, and whatever it will start, whose run is about to begin, and for whom."""
        user = self._home / f"user-{hashlib.sha256(pays.encode()).hexdigest()[:16]}"
        folder = user / f"run-{pid}"
        self._folders[pid] = folder
        with suppress(OSError):  # the process died, or we have no descriptors: its own limits still hold
            if not user.exists():
                user.mkdir()
                _hand_down(user, self._controllers)
                _limit(user, self._of_user)
            with suppress(FileNotFoundError):
                folder.rmdir()  # of another who had this number, and whose end nobody saw
            folder.mkdir()
            _limit(folder, self._of_run)
            (folder / "cgroup.procs").write_text(str(pid))

    def release(self, pid: int) -> bool:
        """Let go of a process that has ended, and tell whether the kernel ended it for its memory."""
        folder = self._folders.pop(pid, None)
        if folder is None:
            return False
        events = ""
        with suppress(OSError):
            events = (folder / "memory.events").read_text()
        with suppress(OSError):
            folder.rmdir()
            folder.parent.rmdir()  # which fails while there are others
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in events.splitlines())


def _hand_down(folder: Path, controllers: tuple[str, ...]) -> None:
    """Let what is below a cgroup be counted, too. Raises OSError."""
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in controllers))


def _limit(folder: Path, limits: Limits) -> None:
    for name, value in limits.items():
        with suppress(FileNotFoundError, PermissionError):  # of a controller that isn't ours, or a kernel without swap
            (folder / name).write_text(str(value))


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
