"""What the gateway asks of the kernel and the C library for its own process, once, before anything else."""

import ctypes
import resource
from contextlib import suppress

M_MMAP_THRESHOLD = -3
LARGE = 32 * 1024
"""Bytes of a piece of memory that is given back by itself once it is free."""


def settle() -> None:
    """Ask for all of it."""
    _raise_descriptor_limit()
    _return_memory()


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as we may: each socket is one, and the usual limit is for programs that have few."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _return_memory() -> None:
    """Keep messages out of the heap.

    A browser that leaves in mid-message leaves a few bytes of gRPC's behind (grpc#43360). Among freed messages these
    keep the heap from being used again or given back: 7 KB each time.
    """
    with suppress(AttributeError):  # a C library that has no such thing
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)
