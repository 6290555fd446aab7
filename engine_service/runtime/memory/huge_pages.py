"""Memory in pages of 2 MiB: to fork a process is to copy the list of its pages, and to end one, to go through it."""

import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

SIZE, PAGE = 2 * 1024 * 1024, mmap.PAGESIZE
ENTRY, PRESENT = 8, 63
"""Bytes of what the kernel says of a page, and the bit that says whether it is there."""
MOSTLY = 0.8
COLLAPSE = 25
"""MADV_COLLAPSE, of Linux 6.1. What a child writes to is copied in small pages all the same."""


def collapse() -> int:
    """Put this process's own memory into huge pages, and return how many that took; 0 where it can't be done."""
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    try:
        with Path("/proc/self/pagemap").open("rb") as pages:
            places = [place for place in _places() if _is_used(pages, place)]
    except OSError:  # with RUN_AS the kernel tells us as little of ourselves as it tells others of that user
        return 0
    return sum(libc.madvise(place, SIZE, COLLAPSE) == 0 for place in places)


def _is_used(pages: BinaryIO, place: int) -> bool:
    """Tell whether most of it is there: what isn't would be."""
    pages.seek(place // PAGE * ENTRY)
    entries = memoryview(pages.read(SIZE // PAGE * ENTRY)).cast("Q")
    return sum(entry >> PRESENT for entry in entries) >= MOSTLY * len(entries) > 0


def _places() -> Iterator[int]:
    """Find where huge pages would lie wholly in what was allocated."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, _, _, _, *name = line.split(maxsplit=5)
        if rights == "rw-p" and (not name or name[0] == "[heap]"):
            start, end = (int(place, 16) for place in span.split("-"))
            yield from range(-(-start // SIZE) * SIZE, end - SIZE + 1, SIZE)
