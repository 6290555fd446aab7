"""What a process has taken for itself, as the kernel counts it."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PARENT = 1
TIMES = slice(11, 15)
"""Its parent, and times, among what follows a process's name: its own, and those of what it started and waited for."""
OWN = ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:", "Swap:")


class Taken(NamedTuple):
    """Memory that it shares with nobody, and time on processors, that of what it started and waited for among it."""

    memory: int
    seconds: float


def all_taken(pids: Iterable[int]) -> dict[int, Taken]:
    """Ask the kernel; those that are gone are left out. It takes a while: a thread does it."""
    return {pid: found for pid in pids if (found := _taken(pid))}


def _taken(pid: int) -> Taken | None:
    try:
        about = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    memory = _private(pid)
    if memory is None:  # it lets nobody look inside but root: what it has beyond that which it was forked with
        memory = max((_anonymous(pid) or 0) - (_anonymous(int(about[PARENT])) or 0), 0)
    return Taken(memory, sum(map(int, about[TIMES])) / TICKS)


def _private(pid: int) -> int | None:
    """Return what a process shares with nobody; None where we may not know."""
    try:
        lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    sizes = (line.split() for line in lines)
    return 1024 * sum(int(size) for name, size, *_ in sizes if name in OWN)


def _anonymous(pid: int) -> int | None:
    """Return what a process has that is in no file, be it shared with others that were forked or not."""
    try:
        _, resident, shared, *_ = (Path("/proc") / str(pid) / "statm").read_text().split()
    except OSError:
        return None
    return (int(resident) - int(shared)) * PAGE
