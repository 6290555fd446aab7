"""What a process has taken for itself, as the kernel counts it."""

import os
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
USER, CHILDRENS = 11, 15
"""The first and the last of four times, counted from what follows a process's name: its own, and its children's."""
OWN = ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:", "Swap:")


class Taken(NamedTuple):
    """Memory that it shares with nobody, and time on processors, that of what it started and waited for among it."""

    memory: int
    seconds: float


def taken(pid: int) -> Taken | None:
    """Ask the kernel; None for one that is gone. It takes a while: a thread does it."""
    process = Path("/proc") / str(pid)
    try:
        times = (process / "stat").read_text().rpartition(")")[2].split()[USER : CHILDRENS + 1]
        lines = (process / "smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    sizes = (line.split() for line in lines)
    kibibytes = sum(int(size) for name, size, *_ in sizes if name in OWN)
    return Taken(kibibytes * 1024, sum(map(int, times[: CHILDRENS - USER])) / TICKS)


def all_taken(pids: list[int]) -> dict[int, Taken]:
    """Ask it of many."""
    return {pid: found for pid in pids if (found := taken(pid))}
