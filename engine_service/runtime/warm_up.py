"""What is done before there are children: what it costs is shared by all of them, and paid once."""

import asyncio
import gc
import inspect
import os
import pickle
import signal
import socket
from collections.abc import Iterable

from engine_service.runtime import leftovers
from engine_service.runtime.agent import Agent, RunContext, Shared, perform
from engine_service.runtime.child import Given, PipeSink, do_run
from engine_service.runtime.credentials import Credentials
from engine_service.runtime.folder import Folder
from engine_service.wire import FIRST, WORK, RegistryError, Terms, word

TIMES = 20
"""Runs until nothing changes any more. See decision 8."""
TERMS = Terms(modules=(), max_event_bytes=1024 * 1024, memory=0, seconds=60, ask_timeout=60)
"""Those of a rehearsal."""


class Rehearsal(Agent):
    """What most agents do."""

    name = FIRST.agent
    public = False

    async def run(self, context: RunContext, input: str) -> str:
        """Think, say, report."""
        await context.think(input)
        await context.say(input)
        await context.report("said", {"said": input})
        return input


def rehearse() -> None:
    """Do some runs in this process.

    The interpreter writes beside the code that runs often, and libraries prepare what is used for the first time. Each
    child would do so by itself, and have its own copy of every page that is written to.
    """
    data = pickle.dumps(FIRST)
    for _ in range(TIMES):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(_once(word(WORK, data)))
        loop.close()
    signal.alarm(0)


async def _once(said: bytes) -> None:
    engine, ours = socket.socketpair()
    reading, writing = os.pipe()
    sink = PipeSink(writing)
    with engine, ours:
        engine.sendall(said)
        await do_run(ours, sink, Given({Rehearsal.name: Rehearsal}, TERMS, Credentials((), ""), Folder()))
    sink.close()
    os.close(reading)


def who_warms_up(agents: Iterable[type[Agent]]) -> tuple[type[Agent], ...]:
    """Return the classes that say how they are warmed up, each once, however many agents have it from there."""
    said = (next(kind for kind in agent.__mro__ if "warm_up" in vars(kind)) for agent in agents)
    return tuple(dict.fromkeys(kind for kind in said if kind is not Agent))


def warm_up(agent: type[Agent]) -> list[str]:
    """Let an agent prepare what its runs will share, and return what it left open. Raises RegistryError.

    Tasks end with their loop. A socket would be all runs' at once: it leads nowhere from now on.
    """
    before = leftovers.sockets()
    try:
        asyncio.run(agent.warm_up())
    except Exception as error:
        where = inspect.getfile(agent)
        raise RegistryError(f"{where}: {agent.__qualname__}.warm_up failed: {type(error).__name__}: {error}") from error
    gc.collect()
    left = [descriptor for descriptor, what in leftovers.sockets().items() if before.get(descriptor) != what]
    return [f"{agent.__qualname__}: {leftovers.close(descriptor)}" for descriptor in left]


async def rehearsed(agent: type[Agent], input: str) -> str:
    """Do a run whose events go nowhere, and return its answer. Raises AgentError."""
    return await perform(agent, agent.name, input, Shared.of(FIRST, _Nowhere(), {}, TERMS, is_alone=True))


class _Nowhere:
    """Takes frames, and forgets them."""

    drained = True

    def write(self, frame: bytes) -> None:
        """Take a frame."""

    async def drain(self) -> None:
        """Wait for nothing."""
