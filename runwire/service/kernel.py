"""What a service asks of the kernel and the C library for its own process, once, before anything else."""

import ctypes
import gc
import resource
from contextlib import suppress

PR_SET_DUMPABLE = 4
PR_SET_PDEATHSIG = 1
M_MMAP_THRESHOLD = -3
LARGE = 32 * 1024
"""Bytes of a piece of memory that is given back by itself once it is free."""


def configure() -> None:
    """Ask for all of it."""
    _raise_descriptor_limit()
    libc = ctypes.CDLL(None)
    # Keys and tokens are in our memory: no process of our user, an agent's among them, is to read it through /proc.
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    _return_memory(libc)


THRESHOLDS = (700, 10, 3)
"""Objects, and rounds, after which the garbage collector looks."""


def settle_memory() -> None:
    """Spare the garbage collector what the boot made and what stays: looking through it takes 20 ms each time.

    A connection that has ended leaves some objects in circles. Python waits for 70,000 of them (200,000 since 3.12),
    and then holds the loop until all are gone: 0.1 s where strangers come and go.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as we may: each run or socket has some, and the usual limit is for those with few."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _return_memory(libc: ctypes.CDLL) -> None:
    """Keep messages out of the heap.

    Each write that a caller's leaving interrupts leaves 96 bytes of gRPC's behind (grpc#43360). Among freed messages
    these few bytes keep the heap from being used again or given back: 7 KB each time.
    """
    with suppress(AttributeError):  # a C library that has no such thing
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
