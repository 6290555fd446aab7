"""Runs before there are children: what the first ones cost is shared by all that follow, and paid once."""

import asyncio
import os
import pickle
import signal
import socket

from engine_service.runtime.agent import Agent, RunContext
from engine_service.runtime.child import PipeSink, do_run
from engine_service.wire import FIRST, WORK, word

TIMES = 20
"""Runs until nothing changes any more. See decision 8."""


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
        await do_run(ours, sink, {Rehearsal.name: Rehearsal}, max_event_bytes=1024, seconds=60)
    sink.close()
    os.close(reading)
