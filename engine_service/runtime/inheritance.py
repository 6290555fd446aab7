"""What a forked process has from the zygote and must not take for its own: exit functions, threads, random numbers."""

import atexit
import gc
import os
import queue
import shutil
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any


class Inheritance:
    """What there is at the fork. Looked for once, before it; renounced in each child."""

    def __init__(self) -> None:
        pools = (each for each in gc.get_objects() if issubclass(type(each), ThreadPoolExecutor))
        self._pools: list[Any] = list(pools)

    def renounce(self) -> None:
        """Undo what would make this process a part of the zygote, or the same as its siblings."""
        _disarm()
        _reseed()
        for pool in self._pools:
            # Its threads are the zygote's. A pool that believes it has idle ones would wait for them for ever.
            pool._threads = set()
            pool._idle_semaphore = threading.Semaphore(0)
            pool._work_queue = queue.SimpleQueue()


def exit_functions() -> int:
    """Return how many functions want to run at the end of this process."""
    return int(atexit._ncallbacks())  # pyright: ignore[reportPrivateUsage]


def run_exit_functions() -> None:
    """Run them: what holds a run's spans and lines back sends them now."""
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]


def _disarm() -> None:
    """Leave to the zygote what would be undone for all: a module's temporary folder, its processes, its queues."""
    for remove in (shutil.rmtree, os.remove, os.unlink, os.rmdir, os.removedirs):
        atexit.unregister(remove)
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        finalizer.atexit = False
    if util := sys.modules.get("multiprocessing.util"):
        util._finalizer_registry.clear()
    if process := sys.modules.get("multiprocessing.process"):
        process._children = set()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def _reseed() -> None:
    """Seed what all children would begin alike. Python's own `random` does so by itself."""
    for name in ("numpy.random", "torch"):
        module: Any = sys.modules.get(name)
        with suppress(Exception):  # a version that has no such thing
            if module:
                module.seed()
