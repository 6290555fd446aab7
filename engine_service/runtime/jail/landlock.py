"""Landlock: which files a process may use, which ports it may call, and whom it may send signals to.

A rule allows something beneath a file or folder; what no rule allows is denied, for good, and for all that the process
starts. A process that restricts itself again keeps what both allow.
"""

import ctypes
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress

from engine_service.runtime.jail.kernel import ADD_RULE, CREATE_RULESET, RESTRICT_SELF, syscall

VERSION = 1
BENEATH, PORT = 1, 2
"""Kinds of rules."""

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL = 1 << 14, 1 << 15
READ = EXECUTE | READ_FILE | READ_DIR
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL
"""Rights that a file can have, and not only a folder."""

SINCE = {1: 1 << 13, 2: 1 << 14, 3: 1 << 15, 5: 1 << 16}
"""How many rights there are, by the version that they came with: all below this bit."""
BIND, CONNECT = 1 << 0, 1 << 1
ABSTRACT, SIGNALS = 1 << 0, 1 << 1
WITH_PORTS, WITH_SCOPES = 4, 6
"""The versions that know ports, and that keep signals and abstract sockets inside."""

FIRST = 512
"""The lowest number of a descriptor that names something in a rule."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _Port(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


class Rule:
    """What may be done with a file, or beneath a folder. A descriptor names it, whatever its path leads to later."""

    def __init__(self, descriptor: int, rights: int) -> None:
        # Out of the way of all others, one beside the other: they are closed together.
        self.descriptor = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST)
        os.close(descriptor)
        self._struct = _Beneath(rights, self.descriptor)
        self.address = ctypes.addressof(self._struct)


def version() -> int:
    """Return which Landlock the kernel has; 0 for none."""
    try:
        return syscall(CREATE_RULESET, 0, 0, VERSION)
    except OSError:
        return 0


KNOWN = version()
RIGHTS = max((bit for since, bit in SINCE.items() if since <= KNOWN), default=1) - 1
"""All rights that it knows."""


def beneath(paths: Iterable[str], rights: int) -> list[Rule]:
    """Return rules that allow this of each path, and beneath it. What isn't there, or lies below another, has none."""
    found = sorted({os.path.realpath(path) for path in paths})
    kept = list[str]()
    for path in found:  # in this order, what is above comes first
        if not any(path.startswith(f"{above}/") for above in kept):
            kept.append(path)
    return list(_rules(kept, rights & RIGHTS))


def _rules(paths: Iterable[str], rights: int) -> Iterator[Rule]:
    for path in paths:
        with suppress(OSError):
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            yield Rule(descriptor, rights if is_folder else rights & OF_FILES)


def restrict(rules: Iterable[Rule], ports: Iterable[int]) -> None:
    """Allow this process these things from now on, and nothing else. Raises OSError."""
    about = _Ruleset(fs=RIGHTS, net=BIND | CONNECT, scoped=ABSTRACT | SIGNALS)
    size = 24 if KNOWN >= WITH_SCOPES else 16 if KNOWN >= WITH_PORTS else 8
    ruleset = syscall(CREATE_RULESET, ctypes.addressof(about), size)
    try:
        for rule in rules:
            syscall(ADD_RULE, ruleset, BENEATH, rule.address)
        for port in ports if KNOWN >= WITH_PORTS else ():
            allowed = _Port(CONNECT, port)
            syscall(ADD_RULE, ruleset, PORT, ctypes.addressof(allowed))
        syscall(RESTRICT_SELF, ruleset)
    finally:
        os.close(ruleset)


def close(rules: Iterable[Rule]) -> None:
    """Let go of what names them."""
    numbers = [rule.descriptor for rule in rules]
    os.closerange(min(numbers), max(numbers) + 1)
