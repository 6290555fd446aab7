"""The broker's process. The engine starts it, holds the other end of its socket, and ends it by letting go."""

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import aiohttp
from aiohttp import web

from engine_service.broker.carrier import PATIENCE, WARM, Carrier
from engine_service.broker.messages import (
    CODEC,
    MAX_MESSAGE,
    Called,
    Grant,
    Leave,
    Left,
    Listen,
    Noted,
    Revoke,
    Said,
    Serve,
    Serving,
)
from engine_service.broker.purse import Purses
from runwire.service import kernel
from runwire.service.arrivals import Arrivals, Listener, say_less

HEARD = 5.0
"""Seconds that an answer's end waits for the run to have been told of it."""
AT_ONCE = 10_000
"""Calls that are carried at once, of all runs."""
IDLE = 30.0
"""Seconds that a run's connection waits for the next call."""
BIG = 128 * 1024
"""Bytes of an answer that wait for a run which reads slowly. Then its server waits, too."""


class Broker:
    """Hears the engine, and serves runs."""

    def __init__(self, engine: socket.socket) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._told: dict[int, asyncio.Future[None]] = {}
        self._sites: dict[int, web.SockSite] = {}
        self._tasks = set[asyncio.Task[None]]()
        self._arrivals = Arrivals(())
        self._ended = asyncio.Event()

    async def serve(self, serve: Serve) -> None:
        """Carry calls until the engine is gone."""
        self._purses = Purses(serve.tokens_per_run)
        connector = aiohttp.TCPConnector(limit=AT_ONCE, keepalive_timeout=WARM)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=PATIENCE,
            read_bufsize=BIG,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": "runwire"},
            skip_auto_headers=("User-Agent",),
        ) as session:
            upstreams = {each.name: each for each in serve.upstreams}
            carrier = Carrier(upstreams, self._purses, session, self._report, self._arrivals.asked, self._say)
            carrier.learn = self._hear
            options: dict[str, Any] = {"handler_cancellation": True, "access_log": None, "keepalive_timeout": IDLE}
            self._runner = web.ServerRunner(web.Server(carrier.handle, **options))
            await self._runner.setup()
            self._say(Serving())
            self._loop.add_reader(self._engine, self._hear)
            await self._ended.wait()
            self._loop.remove_reader(self._engine)
            await self._runner.cleanup()

    def _hear(self) -> None:
        """Hear all that the engine has said by now."""
        with suppress(BlockingIOError):
            while not self._ended.is_set():
                message, descriptors, *_ = socket.recv_fds(self._engine, MAX_MESSAGE, 1)
                if not message:
                    self._ended.set()
                    return
                self._take_in(CODEC.read(message), descriptors)

    def _take_in(self, message: Said, descriptors: list[int]) -> None:
        match message:
            case Listen(door):
                self._keep(self._listen(door, Listener(fileno=descriptors[0])))
            case Leave(door) if door in self._sites:
                self._keep(self._sites.pop(door).stop())
            case Grant() as grant:
                self._purses.grant(grant)
            case Left(pays, tokens):
                self._purses.left(pays, tokens)
            case Revoke(token):
                self._purses.revoke(token)
            case Noted(number):
                if (told := self._told.get(number)) and not told.done():
                    told.set_result(None)
            case _:
                pass

    async def _listen(self, door: int, listener: Listener) -> None:
        listener.arrivals = self._arrivals  # whoever connects, and does not call, is let go when there are many
        listener.setblocking(False)
        self._sites[door] = site = web.SockSite(self._runner, listener)
        await site.start()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _report(self, called: Called) -> None:
        """Tell the engine what a call took, and wait until its run has been told."""
        self._told[called.number] = told = self._loop.create_future()
        self._say(called)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARD):
                    await told
        finally:
            del self._told[called.number]

    def _say(self, message: Said) -> None:
        try:
            self._engine.send(CODEC.written(message))
        except BlockingIOError:  # it is so busy that it hears nothing: what a call took waits
            self._loop.call_later(0.01, self._say, message)
        except (BrokenPipeError, ConnectionError):
            self._ended.set()


async def _main(engine: socket.socket) -> None:
    message = await asyncio.get_running_loop().run_in_executor(None, engine.recv, MAX_MESSAGE)
    serve = CODEC.read(message)
    assert isinstance(serve, Serve), "the engine says first what is served"  # noqa: S101 - for the reader, and mypy
    engine.setblocking(False)
    say_less()
    await Broker(engine).serve(serve)


def main() -> None:
    """Serve the engine that holds the other end of the socket."""
    ctypes.CDLL(None).prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[2]):
        sys.exit(1)
    kernel.configure()  # it has keys
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the engine says when it is over
    with socket.socket(fileno=int(sys.argv[1])) as engine:
        engine.set_inheritable(False)
        asyncio.run(_main(engine))


if __name__ == "__main__":
    main()
