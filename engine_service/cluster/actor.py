"""What holds a run's place on a cluster: an actor, and below it the run's process, as it would be at the engine.

So the agent can do here what it can do there, and no more: it holds up nobody, and ends in the same ways. See decision
18.
"""

import asyncio
import os
from collections.abc import AsyncIterator, MutableMapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import ray
import structlog

from engine_service.cluster.messages import MAX_TEXT
from engine_service.wire import GRACE, Description, RegistryError, Terms, Work
from engine_service.workers import Unwatched, WorkerError
from engine_service.workers.demand import LEAST, Demand
from engine_service.workers.fork_server import ForkServer
from engine_service.workers.home import Home
from engine_service.workers.worker import ProcessWorker

NOT_BEGUN = "it could not begin on the cluster"
LOST = "its place on the cluster is lost"

Line = tuple[str, str, str]
"""For the log: a level, what happened, and more about it."""


class Place:
    """Has one run's process. Made for one run, and never used again."""

    def __init__(self) -> None:
        self._lines = asyncio.Queue[Line | None]()
        self._begun = asyncio.Event()
        self._is_lost = False
        self._worker: ProcessWorker
        structlog.configure(processors=[self._take_line])  # all that is logged in this process is of the run

    async def run(
        self, work: Work, agent: Description, terms: Terms, import_timeout: float
    ) -> AsyncIterator[bytes | str]:
        """Yield the node's name, then the run's frames, and last how its process ended, in words."""
        raylet = os.pidfd_open(os.getppid())
        asyncio.get_running_loop().add_reader(raylet, self._lose, raylet)
        with Home(None) as home:
            server = _server(replace(terms, home=home.path), import_timeout)
            try:
                await server.wait_ready()
                server.agents = {agent.name: agent}
                self._worker = await server.start(work)
                server.retire()
                self._begun.set()
                yield ray.get_runtime_context().get_node_id()
                while data := await self._worker.read():
                    yield data
                how = await self._worker.close()
            except (OSError, RegistryError, WorkerError) as error:
                structlog.get_logger().error("a run could not begin", text=str(error))
                how = NOT_BEGUN
            finally:
                await server.shut_down()
        self._lines.put_nowait(None)
        yield LOST if self._is_lost else how

    def _lose(self, raylet: int) -> None:
        """End the run, and this process, when the node's is gone that would end us: to all others, we are dead."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(raylet)
        self._is_lost = True
        if self._begun.is_set():
            self._worker.kill()
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
        """Tell the agent to stop, and end it `grace` seconds later."""
        await self._begun.wait()
        self._worker.stop(grace)

    async def rehearse(self, agent: Description, terms: Terms, import_timeout: float, ours: str) -> str:
        """Find out whether runs of an agent would get somewhere here; return what is wrong."""
        if (theirs := version("runwire")) != ours:
            return f"runwire {theirs} is installed there, and {ours} here"
        with Home(None) as home:
            server = _server(replace(terms, home=home.path), import_timeout)
            try:
                await server.wait_ready()
                server.agents = {agent.name: agent}
                await server.begin()
            except (OSError, RegistryError) as error:
                return str(error)
            finally:
                await server.shut_down()
        return ""

    def _take_line(self, _: Any, level: str, event: MutableMapping[str, Any]) -> str:
        what = event.pop("event", "")
        text = event.pop("text", "") or ", ".join(f"{name}={value}" for name, value in event.items())
        for start in range(0, max(len(text), 1), MAX_TEXT):
            self._lines.put_nowait((level, what, text[start : start + MAX_TEXT]))
        raise structlog.DropEvent


def _server(terms: Terms, import_timeout: float) -> ForkServer:
    return ForkServer(terms, import_timeout, None, Demand(LEAST), Unwatched())
