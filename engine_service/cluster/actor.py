"""What holds a run's place on a cluster: an actor, and below it the run's process, as it would be at the engine.

So the agent can do here what it can do there, and no more: it holds up nobody, and ends in the same ways. See decision
18.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import ray
import structlog

from engine_service.cluster.messages import MAX_TEXT
from engine_service.wire import GRACE, Description, RegistryError, Terms, Work
from engine_service.workers import Unwatched, WorkerError
from engine_service.workers.channel import CHUNK
from engine_service.workers.demand import LEAST, Demand
from engine_service.workers.fork_server import ForkServer
from engine_service.workers.home import Home
from engine_service.workers.worker import ProcessWorker

PACE = 0.01
"""Seconds between two pieces of little: each costs Ray a millisecond, wherever it comes from. After a silence there is
none."""
NOT_BEGUN = "it could not begin on the cluster"
LOST = "its place on the cluster is lost"

Line = tuple[str, str, str]
"""For the log: a level, what happened, and more about it."""


class Place:
    """Has one run's process. Made for one run, and never used again."""

    def __init__(self, agent: Description, terms: Terms, import_timeout: float) -> None:
        self._lines = asyncio.Queue[Line | None]()
        structlog.configure(processors=[self._take_line])  # all that is logged in this process is of the run
        self._agent = agent
        self._home = Home(None)
        terms = replace(terms, home=self._home.path)
        # Here, and not when there is work: until then Ray takes the time that the agents' imports do.
        self._server = ForkServer(terms, import_timeout, None, Demand(LEAST), Unwatched())
        self._begun = asyncio.Event()
        self._worker: ProcessWorker
        self._is_lost = self._is_ended = False
        self._raylet = os.pidfd_open(os.getppid())
        asyncio.get_running_loop().add_reader(self._raylet, self._lose)

    async def run(self, work: Work) -> AsyncIterator[bytes | str]:
        """Yield which node it is, then the run's frames, and last how its process ended, in words."""
        with self._home:
            try:
                yield f"{ray.get_runtime_context().get_node_id()} on {socket.gethostname()}"
                await self._get_ready()
                self._worker = await self._server.start(work)
                self._server.retire()
                self._begun.set()
                while data := await self._worker.read():
                    yield data
                    if len(data) < CHUNK // 2:
                        await asyncio.sleep(PACE)
                how = await self._worker.close()
            except (OSError, RegistryError, WorkerError) as error:
                if not self._is_ended:
                    structlog.get_logger().error("a run could not begin", text=str(error))
                how = NOT_BEGUN
            finally:
                await self._server.shut_down()
        self._lines.put_nowait(None)
        yield LOST if self._is_lost else how

    async def rehearse(self, ours: str) -> str:
        """Find out whether runs of the agent would get somewhere here; return what is wrong."""
        if (theirs := version("runwire")) != ours:
            return f"runwire {theirs} is installed there, and {ours} here"
        with self._home:
            try:
                await self._get_ready()
                await self._server.begin()
            except (OSError, RegistryError) as error:
                return str(error)
            finally:
                await self._server.shut_down()
        return ""

    async def _get_ready(self) -> None:
        await self._server.wait_ready()
        self._server.agents = {self._agent.name: self._agent}

    def _lose(self) -> None:
        """End the run, and this process, when the node's is gone that would end us: to all others, we are dead."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._raylet)
        self._is_lost = self._is_ended = True
        (self._worker if self._begun.is_set() else self._server).kill()  # without a word to the agent: this is no stop
        loop.call_later(GRACE, os._exit, 1)

    async def lines(self) -> AsyncIterator[Line]:
        """Yield what is for the engine's log, what the agent prints among it."""
        while line := await self._lines.get():
            yield line

    async def tell(self, tag: int, body: bytes) -> None:
        """Tell the agent's side a word."""
        await self._begun.wait()
        self._worker.tell(tag, body)

    async def stop(self, grace: float) -> None:
        """Tell the agent to stop, and end it `grace` seconds later; at once if it has not begun."""
        self._is_ended = True
        if self._begun.is_set():
            self._worker.stop(grace)
        else:
            self._server.kill()

    def _take_line(self, _: Any, level: str, event: MutableMapping[str, Any]) -> str:
        what = event.pop("event", "")
        text = event.pop("text", "") or ", ".join(f"{name}={value}" for name, value in event.items())
        for start in range(0, max(len(text), 1), MAX_TEXT):
            self._lines.put_nowait((level, what, text[start : start + MAX_TEXT]))
        raise structlog.DropEvent
