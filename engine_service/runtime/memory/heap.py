"""Free places in the C library's heap, for what is too large for Python's own places for objects.

As with those, what a child puts into them is beside what is shared, and a page is copied for it.
"""

import ctypes

from engine_service.runtime.memory.holes import MOST

SIZES = (32_768, 16_384, 8_192, 4_096, 2_048, 1_024, 768, 640, 560, 528, 256, 128, 64, 24)
"""Bytes of what is put into them, one after the other: the largest places first."""


def fill() -> None:
    """Give back what can be given back, and fill what is left; nothing where the C library is another."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        return
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.sbrk.argtypes = [ctypes.c_size_t], [ctypes.c_ssize_t]
    libc.malloc_trim(0)
    end = int(libc.sbrk(0))
    for size in SIZES:
        for _ in range(MOST // size):
            if (libc.malloc(size) or end) >= end:  # it came from behind all holes: there are no more of that size
                break
