"""Capabilities: what is left of root's rights. A jail's processes have none, and get none by what they start."""

import ctypes
from contextlib import suppress

from engine_service.runtime.jail.kernel import (
    LIBC,
    PR_CAPBSET_DROP,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_SECUREBITS,
    PRCTL,
    checked,
    prctl,
)

VERSION = 0x20080522
PR_CAP_AMBIENT, CLEAR_ALL = 47, 4
NO_ROOT = 0b11101111
"""Root is nobody special, stays so when it becomes another user, gains nothing; and all of that is locked."""


def forgo() -> None:
    """Have no capability, and never any: not by programs that would give some, either. Raises OSError."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_CAP_AMBIENT, CLEAR_ALL)
    capability = 0
    while PRCTL(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:  # until there is no such one, or it is not ours to drop
        capability += 1
    with suppress(PermissionError):  # there was none to begin with
        prctl(PR_SET_SECUREBITS, NO_ROOT)
    header, none = (ctypes.c_uint32 * 2)(VERSION, 0), (ctypes.c_uint32 * 6)()
    checked(LIBC.capset(header, none))
