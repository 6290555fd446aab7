"""An agent that misbehaves as it is told, or behaves."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from runwire.v1 import events_pb2 as pb

from engine_service import Agent, AgentError, RunContext


class StrangeError(BaseException):
    """Nobody expects it."""


async def behave(_: RunContext) -> str:
    return "well"


async def fail(_: RunContext) -> str:
    raise AgentError("The shop is closed.")


async def fail_for_now(_: RunContext) -> str:
    raise AgentError("The shop is busy.", retryable=True)


async def raise_error(_: RunContext) -> str:
    raise ValueError("secret text from /a/secret/path")


async def raise_strange(_: RunContext) -> str:
    raise StrangeError("secret text")


async def raise_cancelled(_: RunContext) -> str:
    raise asyncio.CancelledError


async def raise_interrupt(_: RunContext) -> str:
    raise KeyboardInterrupt


async def return_number(_: RunContext) -> str:
    return 7  # type: ignore[return-value]


async def sys_exit(_: RunContext) -> str:
    sys.exit(3)


async def sys_exit_in_task(_: RunContext) -> str:
    async def leave() -> None:
        sys.exit(3)

    await asyncio.create_task(leave())
    return ""


async def os_exit(_: RunContext) -> str:
    os._exit(3)


async def kill_itself(_: RunContext) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


async def segfault(_: RunContext) -> str:
    ctypes.string_at(0)
    return ""


async def eat_memory(_: RunContext) -> str:
    hoard = []
    while True:
        hoard.append(bytearray(16 * 1024 * 1024))


async def sleep(_: RunContext) -> str:
    await asyncio.sleep(3600)
    return ""


async def compute(_: RunContext) -> str:
    while True:
        pass


async def swallow_cancellation(context: RunContext) -> str:
    while True:
        try:
            await context.say("still here")
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


async def clean_up(context: RunContext) -> str:
    try:
        await context.say("working")
        await asyncio.sleep(3600)
    finally:
        await context.say("cleaned up")
    return ""


async def close_descriptors(_: RunContext) -> str:
    os.closerange(3, 4096)
    time.sleep(3600)
    return ""


async def close_all_descriptors(_: RunContext) -> str:
    os.closerange(0, 4096)
    return "unheard"


async def say_too_much(context: RunContext) -> str:
    await context.say("x" * (2 * 1024 * 1024))
    return ""


async def return_too_much(_: RunContext) -> str:
    return "x" * (2 * 1024 * 1024)


async def tool_returns_too_much(context: RunContext) -> str:
    def tool() -> str:
        return "x" * (2 * 1024 * 1024)

    return await context.call(tool)


async def say_from_threads(context: RunContext) -> str:
    def talk() -> None:
        for _ in range(50):
            asyncio.run(context.say("from a thread"))

    await asyncio.gather(*(asyncio.to_thread(talk) for _ in range(3)))
    return "said"


async def say_after_the_end(context: RunContext) -> str:
    def talk() -> None:
        while True:
            asyncio.run(context.say("late"))

    threading.Thread(target=talk, daemon=True).start()
    await context.say("early")
    return "over"


def _write_raw(context: RunContext, data: bytes) -> None:
    os.write(context._writer._sink._pipe, data)  # type: ignore[attr-defined]


async def write_garbage(context: RunContext) -> str:
    _write_raw(context, b"\x00\x01garbage")
    await asyncio.sleep(3600)
    return ""


async def write_what_is_no_event(context: RunContext) -> str:
    _write_raw(context, b"\x12\x02\xff\xff")
    await asyncio.sleep(3600)
    return ""


async def write_torn_ending(context: RunContext) -> str:
    return _write_ending(context, b"\xff\xff")


async def write_another_ending(context: RunContext) -> str:
    event = pb.Event(seq=7, agent="rogue", agent_completed=pb.AgentCompleted())
    return _write_ending(context, event.SerializeToString())


def _write_ending(context: RunContext, body: bytes) -> str:
    _write_raw(context, b"\x1a" + bytes([len(body)]) + body)
    time.sleep(3600)
    return ""


async def fork_and_write(context: RunContext) -> str:
    """The child of a child opens a file of its own, and says something: nothing of it may come out anywhere."""
    with tempfile.TemporaryFile() as file:
        if os.fork() == 0:
            os.dup2(file.fileno(), 200)
            copies = [os.dup(200) for _ in range(20)]  # one of them has the number of the pipe
            context._writer._sink.write(b"\x12\x00")
            os.fork()
            for copy in copies:
                os.fstat(copy)
            with suppress(ChildProcessError):
                os._exit(os.wait()[1])
            os._exit(0)
        _, status = os.wait()
        return f"{status} {os.fstat(file.fileno()).st_size}"


async def write_endless_length(context: RunContext) -> str:
    _write_raw(context, b"\x12" + b"\x80" * 100_000)
    await asyncio.sleep(3600)
    return ""


async def die_of_a_nameless_signal(_: RunContext) -> str:
    os.kill(os.getpid(), 40)
    return ""


async def fail_at_length(_: RunContext) -> str:
    raise AgentError("x" * 2_000_000)


async def tool_fails_at_length(context: RunContext) -> str:
    return await context.call(fail_at_length, _=context)


async def raise_interrupt_in_task(_: RunContext) -> str:
    async def leave() -> None:
        raise KeyboardInterrupt

    await asyncio.create_task(leave())
    return ""


async def go_on_in_two_processes(context: RunContext) -> str:
    os.fork()
    await context.say("who am I?")
    return "twice"


async def report_deeply(context: RunContext) -> str:
    for depth in (25, 33, 40, 200):
        deep: dict[str, Any] = {}
        for _level in range(depth):
            deep = {"deeper": deep}
        await context.report("deep", deep)
    return "deep"


async def fork_itself(_: RunContext) -> str:
    if os.fork() == 0:
        time.sleep(3600)
    return "forked"


async def leave_processes(context: RunContext) -> str:
    """Start a child, a grandchild, and one that left every group it could."""
    here = subprocess.Popen(["sleep", "3600"])
    apart = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    orphan = subprocess.run(
        ["/bin/sh", "-c", "setsid sleep 3600 >/dev/null 2>&1 & echo $!"], capture_output=True, check=True
    )
    await context.report("processes", {"pids": [here.pid, apart.pid, int(orphan.stdout)]})
    if context.parameters.get("wait"):
        await asyncio.sleep(3600)
    return "left"


async def leave_a_task(_: RunContext) -> str:
    async def linger() -> None:
        await asyncio.sleep(3600)

    asyncio.get_running_loop().linger = asyncio.create_task(linger())  # type: ignore[attr-defined]
    return "left"


async def leave_a_thread(_: RunContext) -> str:
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return "left"


async def print_a_lot(_: RunContext) -> str:
    print("hello from the agent")
    print("and this goes to standard error", file=sys.stderr)
    for _number in range(20_000):
        print("x" * 100)
    return "printed"


async def print_and_die(_: RunContext) -> str:
    print("last words")
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


async def slow_tool(context: RunContext) -> str:
    def tool() -> str:
        time.sleep(3600)
        return ""

    return await context.call(tool)


async def tool_fails(context: RunContext) -> str:
    def tool(number: int) -> float:
        return 1 / number

    try:
        await context.call(tool, number=0)
    except ZeroDivisionError:
        return "went on"
    return ""


async def tool_times_out(context: RunContext) -> str:
    async def tool() -> None:
        await asyncio.sleep(3600)

    try:
        async with asyncio.timeout(0.05):
            await context.call(tool)
    except TimeoutError:
        return "went on"
    return ""


WAYS: dict[str, Callable[[RunContext], Awaitable[str]]] = {
    name: way for name, way in globals().items() if asyncio.iscoroutinefunction(way)
}


class Rogue(Agent):
    """Does what it is told."""

    async def run(self, context: RunContext, input: str) -> str:
        return await WAYS[input](context)


class TaskRogue(Agent):
    """Does what it is told, in the engine's own process."""

    isolation = "task"

    async def run(self, context: RunContext, input: str) -> str:
        return await WAYS[input](context)
