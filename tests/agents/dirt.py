"""An agent that says what it finds, then dirties everything it can reach."""

import asyncio
import atexit
import builtins
import contextvars
import ctypes
import gc
import json
import logging
import os
import random
import resource
import signal
import socket
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, ClassVar

from engine_service import Agent, RunContext

GLOBAL: list[str] = []
VARIABLE = contextvars.ContextVar("VARIABLE", default="clean")


class Hook:
    """An import hook that finds nothing."""

    def find_spec(self, *_: Any) -> None:
        return None


class Loop(asyncio.DefaultEventLoopPolicy):
    """Somebody's own event-loop policy."""


def descriptors() -> list[str]:
    """Say what is open, and what it is, but not which."""
    kinds = []
    for number in os.listdir("/proc/self/fd"):
        try:
            kinds.append(f"{number}:{os.readlink(f'/proc/self/fd/{number}').partition('[')[0].partition(':')[0]}")
        except OSError:
            continue  # the one that listed the folder
    return sorted(kinds)


def found() -> dict[str, Any]:
    """Describe whatever a run before could have changed."""
    return {
        "global": list(GLOBAL),
        "class": Dirt.seen,
        "builtins": hasattr(builtins, "dirt"),
        "environment": {name: value for name, value in os.environ.items() if "DIRT" in name},
        "folder": os.getcwd(),
        "umask": _umask(),
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD)],
        "variable": VARIABLE.get(),
        "policy": type(asyncio.get_event_loop_policy()).__name__,
        "hooks": [type(hook).__name__ for hook in sys.meta_path if not isinstance(hook, type)],
        "path": sys.path[-1],
        "modules": "dirt" in sys.modules,
        "descriptors": descriptors(),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "garbage": gc.isenabled(),
        "logging": logging.getLogger().level,
        "filters": len(warnings.filters),
        "recursion": sys.getrecursionlimit(),
        "timer": signal.getitimer(signal.ITIMER_REAL)[0] > 100,
        "standard output": type(sys.stdout).__name__,
        "random": random.getstate() == random.Random(7).getstate(),
        "timeout": socket.getdefaulttimeout(),
        "nice": os.nice(0),
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class Dirt(Agent):
    """Dirties its process."""

    seen: ClassVar[int] = 0

    async def run(self, context: RunContext, input: str) -> str:
        before = json.dumps(found(), sort_keys=True)
        GLOBAL.append(context.user_id)
        type(self).seen += 1
        builtins.dirt = context.user_id  # type: ignore[attr-defined]
        os.environ["DIRT"] = context.user_id
        os.chdir("/tmp")
        os.umask(0)
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
        VARIABLE.set(context.user_id)
        asyncio.set_event_loop_policy(Loop())
        sys.meta_path.insert(0, Hook())
        sys.path.append("/dirt")
        sys.modules["dirt"] = sys
        for _ in range(5):
            os.open("/dev/null", os.O_RDONLY)
        os.set_inheritable(os.open("/dev/null", os.O_RDONLY), True)
        threading.Thread(target=threading.Event().wait).start()
        asyncio.get_running_loop().dirt = asyncio.create_task(asyncio.sleep(3600))  # type: ignore[attr-defined]
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        gc.disable()
        logging.getLogger().setLevel(logging.DEBUG)
        warnings.simplefilter("error")
        sys.setrecursionlimit(500)
        signal.setitimer(signal.ITIMER_REAL, 0)
        random.seed(7)
        socket.setdefaulttimeout(1)
        os.nice(5)
        atexit.register(os.abort)
        Agent.run = None  # type: ignore[method-assign, assignment]
        RunContext.say = None  # type: ignore[method-assign, assignment]
        json.loads = None  # type: ignore[assignment]
        sys.stdout = None
        return before


class TaskDirt(Agent):
    """Dirties what task isolation shares, and what it doesn't."""

    isolation = "task"

    async def run(self, context: RunContext, input: str) -> str:
        before = {"shared": list(GLOBAL), "own": VARIABLE.get(), "object": getattr(self, "mark", "clean")}
        GLOBAL.append(context.user_id)
        VARIABLE.set(context.user_id)
        self.mark = "dirty"
        return json.dumps(before)


class Look(Agent):
    """Says what its process can see."""

    async def run(self, context: RunContext, input: str) -> str:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return json.dumps(
            {
                "descriptors": descriptors(),
                "environment": [name for name in os.environ if name.startswith("RUNWIRE_ENGINE_")],
                "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
                "core": resource.getrlimit(resource.RLIMIT_CORE),
                "data": resource.getrlimit(resource.RLIMIT_DATA)[0],
                "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0],
                "grpc": "grpc" in sys.modules,
                "threads": int(status["Threads"]),
                "leader": os.getpid() == os.getsid(0),
                "alarm": signal.getitimer(signal.ITIMER_REAL)[0],
            }
        )


class Pid(Agent):
    """Says which process it is, and waits."""

    async def run(self, context: RunContext, input: str) -> str:
        await context.say(str(os.getpid()))
        if input == "stubborn":
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    continue
        await asyncio.sleep(3600)
        return ""
