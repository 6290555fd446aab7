"""Calls of the kernel that Python has no function for."""

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)
_SYSCALL, PRCTL = LIBC.syscall, LIBC.prctl
# Said once: each call is then a few of the interpreter's steps, and a run makes a hundred before it begins.
_SYSCALL.argtypes, _SYSCALL.restype = (ctypes.c_long,) * 7, ctypes.c_long
PRCTL.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
MOUNT_SETATTR = 442
"""Numbers that are the same on all machines: these calls are younger than the kernel's habit of giving each its own."""

PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS = 24, 28, 38


def syscall(number: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0) -> int:
    """Call the kernel by a number. What it is to read or write is told by its address. Raises OSError."""
    return checked(_SYSCALL(number, a, b, c, d, e, f))


def prctl(what: int, a: int = 0, b: int = 0) -> int:
    """Ask for something of our own process. Raises OSError."""
    return checked(PRCTL(what, a, b, 0, 0))


def checked(result: int) -> int:
    """Return what a call returned. Raises OSError if that means that it failed."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
