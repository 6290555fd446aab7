"""Objects whose references are not counted any more, so that a forked process never writes to them.

CPython counts references inside each object: whoever only looks at one writes to its page, which until then was shared
with the zygote. Since 3.12 there is a count that means "never ends", and is never written (PEP 683).
"""

import asyncio
import ctypes
import gc
import io
import socket
import struct
import sys
import sysconfig
import types

WORD = 8
"""Bytes of an address."""
NEVER = {(3, 12): 0xFFFF_FFFF, (3, 13): 0xFFFF_FFFF}
"""The low 32 bits of that count, in each version that this was tested with. Elsewhere nothing is done."""
MORTAL = (
    types.FrameType,
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
    asyncio.Future,
    io.IOBase,
    socket.socket,
)
"""What has an end that somebody waits for."""


def make_immortal() -> int:
    """Make all objects that there are immortal; return how many that were, or 0 where it can't be done."""
    never = _never()
    if never is None:
        return 0
    everything = _reachable()  # held here: what ended meanwhile would be no object any more
    for each in everything:
        low = ctypes.c_uint32.from_address(id(each))
        low.value = max(low.value, never)
    return len(everything)


def _never() -> int | None:
    """Return the count that is never written, where this is an interpreter that has been tried."""
    is_common = sys.implementation.name == "cpython" and sys.byteorder == "little" and struct.calcsize("P") == WORD
    is_other_build = sysconfig.get_config_var("Py_GIL_DISABLED") or hasattr(sys, "gettotalrefcount")
    return NEVER.get(sys.version_info[:2]) if is_common and not is_other_build else None


def _reachable() -> list[object]:
    """Return all objects that can be reached from those that the collector knows."""
    ends: dict[type, bool] = {}
    seen = set[int]()
    found: list[object] = []
    news = gc.get_objects()
    while news:
        kept: list[object] = []
        for each in news:
            kind = type(each)
            if id(each) in seen:
                continue
            if kind not in ends:
                ends[kind] = issubclass(kind, MORTAL)
            if not ends[kind]:
                seen.add(id(each))
                kept.append(each)
        found += kept
        news = gc.get_referents(*kept)
    return found
