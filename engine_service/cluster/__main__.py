"""The engine's driver on a cluster: it has an actor for each run, and carries what passes between the two.

A process apart, since a driver ends with its cluster, and what comes from there is not to be believed. The engine
starts it, holds the other end of its socket, and ends it by letting go.
"""

import asyncio
import json
import logging
import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Coroutine
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine_service import resources
from engine_service.cluster.actor import LOST, Place
from engine_service.cluster.messages import (
    CODEC,
    MAX_MESSAGE,
    MAX_TEXT,
    Begin,
    Connect,
    Connected,
    Ended,
    Kill,
    Logged,
    NotConnected,
    Placed,
    Rehearse,
    Rehearsed,
    Told,
)
from engine_service.wire import GRACE, LONGEST, WORK, Words, Work
from engine_service.workers import KILLED, OUT_OF_MEMORY

KNOCK = 5.0
"""Seconds that the cluster may take to answer at all."""
PEER = struct.Struct("3i")
"""Who is at the other end of a Unix socket: a process, a user, a group."""
PIECE = 64 * 1024
"""Bytes of what the engine says to a run that are read at once."""
AHEAD = 1
"""Pieces of a run's events that are on their way, at most."""
NO_PLACE = "it had no place yet"
STREAM = {"num_returns": "streaming", "_generator_backpressure_num_objects": AHEAD}
CPUS = {"num_cpus": 1}
"""What a run has that says nothing: Ray's own default for actors would let any number be on a node."""


class Driver:
    """Hears the engine, and has runs on the cluster."""

    def __init__(self, engine: socket.socket) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._saying = asyncio.Lock()
        self._passages: dict[int, Passage] = {}
        self._tasks = set[asyncio.Task[None]]()
        self._place = ray.remote(Place)

    async def serve(self) -> None:
        """Have runs until the engine is gone; then end them."""
        if raylet := await asyncio.to_thread(_raylet):
            self._loop.add_reader(raylet, _end_without_a_node)
        while True:
            try:
                message, descriptors, *_ = socket.recv_fds(self._engine, MAX_MESSAGE, 2)
            except BlockingIOError:
                await _ready(self._loop.add_reader, self._loop.remove_reader, self._engine)
                continue
            except OSError:
                break
            if not message:
                break
            self._take_in(CODEC.read(message), descriptors)
        for passage in self._passages.values():
            passage.stop(GRACE)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2 * GRACE)

    def _take_in(self, message: Any, descriptors: list[int]) -> None:
        match message:
            case Begin(number) as begin:
                self._passages[number] = begun = Passage(self, begin, *descriptors)
                self._keep(self._carry(begun))
            case Kill(number) if passage := self._passages.get(number):
                passage.kill()
            case Rehearse() as rehearse:
                self._keep(self._rehearse(rehearse))
            case _:
                pass

    async def _carry(self, passage: "Passage") -> None:
        how = await passage.carry()
        del self._passages[passage.number]
        await self.say(Ended(passage.number, how))

    async def _rehearse(self, about: Rehearse) -> None:
        """Find out what Ray would say of an agent's runs, and what they would find on a node that they could be on."""
        wanted, node = CPUS | resources.read(about.agent.resources), ""
        try:
            ray.kill(self.made(about, wanted))  # a place isn't waited for
            if node := await asyncio.to_thread(_node_for, wanted):
                on_it = NodeAffinitySchedulingStrategy(node, soft=False)  # and nobody is kept waiting for it
                options = {"num_cpus": 0, "runtime_env": wanted.get("runtime_env"), "scheduling_strategy": on_it}
                actor = self.made(about, options)
                error = str(await actor.rehearse.remote(version("runwire")))
                ray.kill(actor)
            else:
                error = ""
        except Exception as failed:  # noqa: BLE001 - of whatever kind it is, it is said to the engine
            error = f"{type(failed).__name__}: {failed}"
        await self.say(Rehearsed(about.number, node, error[:MAX_TEXT]))

    def made(self, about: Rehearse | Begin, options: dict[str, Any]) -> Any:
        """Make an actor. Raises what Ray raises of options that it doesn't take."""
        return self._place.options(**options).remote(about.agent, about.terms, about.import_timeout)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def say(self, message: Told) -> None:
        """Say something to the engine; to nobody, once it is gone."""
        async with self._saying:
            with suppress(OSError):
                await self._loop.sock_sendall(self._engine, CODEC.written(message))


class Passage:
    """One run: its actor, and what passes between that and the engine."""

    def __init__(self, driver: Driver, begin: Begin, work: int, events: int) -> None:
        self.number = begin.number
        self._driver = driver
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._work, self._events = socket.socket(fileno=work), events
        self._work.setblocking(False)
        os.set_blocking(events, False)
        self._words = Words()
        self._actor: Any = None
        self._is_there = False
        self._is_killed = False
        self._hearing: asyncio.Task[None] | None = None
        self._carrying: asyncio.Task[Any] | None = None
        self._killing: asyncio.TimerHandle | None = None

    async def carry(self) -> str:
        """Carry a run's events until it has ended, or was given up, and say how that was."""
        self._carrying = asyncio.current_task()
        try:
            work = await self._receive()
            if work is None or self._is_killed:
                return NO_PLACE
            self._actor = self._driver.made(self._begin, CPUS | resources.read(self._begin.agent.resources))
            self._hearing = self._loop.create_task(self._hear())
            items = self._actor.run.options(**STREAM).remote(work)
            lines = self._loop.create_task(self._log())
            try:
                how = await self._pass_on(items)
                await lines
            finally:
                lines.cancel()
        except asyncio.CancelledError:
            return KILLED
        except Exception as error:  # noqa: BLE001 - of whatever kind it is, this run is lost, and no other
            if self._is_killed:
                return KILLED if self._is_there else NO_PLACE
            return await self._explain(error)
        else:
            return how
        finally:
            self._let_go()

    async def _pass_on(self, items: Any) -> str:
        """Pass the events on as fast as the engine takes them. What it takes no more is for nobody."""
        said: bytes | str = ""
        async for item in items:
            said = await item
            if isinstance(said, bytes):
                await self._write(said)
            elif not self._is_there:
                self._is_there = True
                await self._driver.say(Placed(self.number, said))
        return str(said)

    async def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._events, left) :]
            except BlockingIOError:
                await _ready(self._loop.add_writer, self._loop.remove_writer, self._events)
            except OSError:
                return

    async def _log(self) -> None:
        with suppress(RayError):  # how the run ended is told where its events are read
            async for item in self._actor.lines.options(**STREAM).remote():
                level, event, text = await item
                await self._driver.say(Logged(self.number, level, event, text))

    async def _explain(self, error: Exception) -> str:
        """Say how a run ended whose place is gone: in a word to its user, and in the cluster's own to the log."""
        await self._driver.say(Logged(self.number, "error", LOST, str(error)[:MAX_TEXT]))
        if isinstance(error, OutOfMemoryError) or "OUT_OF_MEMORY" in str(error):
            return OUT_OF_MEMORY
        return "its environment on the cluster cannot be made" if isinstance(error, RuntimeEnvSetupError) else LOST

    async def _receive(self) -> Work | None:
        while data := await self._read():
            for tag, body in self._words.feed(data):
                if tag == WORK:
                    work: Work = pickle.loads(body)  # noqa: S301 - from the engine, through a socket that only it has
                    return work
        return None

    async def _hear(self) -> None:
        """Tell the agent's side what the engine says, in that order. The end of what it says means: stop."""
        with suppress(RayError):
            while data := await self._read():
                for tag, body in self._words.feed(data):
                    await self._actor.tell.remote(tag, body)
        self.stop(LONGEST)

    async def _read(self) -> bytes:
        with suppress(OSError):
            return await self._loop.sock_recv(self._work, PIECE)
        return b""

    def stop(self, grace: float) -> None:
        """Tell the agent to stop, and end it `grace` seconds later. One that is not there yet ends at once."""
        if self._is_there:
            self._actor.stop.remote(grace)
        else:
            self._end()

    def kill(self) -> None:
        """End the agent at once; if nobody there answers, wait no longer."""
        self.stop(0)
        self._killing = self._killing or self._loop.call_later(GRACE, self._give_up)

    def _give_up(self) -> None:
        self._end()
        if self._carrying:
            self._carrying.cancel()

    def _end(self) -> None:
        self._is_killed = True
        if self._actor is not None:
            ray.kill(self._actor)

    def _let_go(self) -> None:
        for each in (self._hearing, self._killing):
            if each:
                each.cancel()
        self._end()
        self._loop.remove_writer(self._events)
        os.close(self._events)
        self._work.close()


def _raylet() -> int | None:
    """Return a descriptor of the process that is our node of the cluster; None if it is none that we can see."""
    ours = ray.get_runtime_context().get_node_id()
    for node in ray.nodes():
        if node["NodeID"] == ours:
            with socket.socket(socket.AF_UNIX) as asked, suppress(OSError):
                asked.connect(node["RayletSocketName"])
                pid, *_ = PEER.unpack(asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
                return os.pidfd_open(pid)
    return None


def _end_without_a_node() -> None:
    """End at once: Ray would look for its cluster for minutes, and runs would wait for places that nobody gives."""
    sys.stderr.write("the node of the cluster that the engine is on has ended\n")
    sys.stderr.flush()
    os._exit(1)


async def _ready(add: Any, remove: Any, descriptor: Any) -> None:
    """Wait until a descriptor can be read, or written to."""
    ready = asyncio.Event()
    add(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        remove(descriptor)


def _node_for(wanted: dict[str, Any]) -> str:
    """Return a node that has all that is wanted, be it free or not; nothing when none has."""
    needs = {"CPU": wanted["num_cpus"], "GPU": wanted.get("num_gpus", 0), "memory": wanted.get("memory", 0)}
    needs |= wanted.get("resources", {})
    if accelerator := wanted.get("accelerator_type"):
        needs[f"accelerator_type:{accelerator}"] = 0
    for node in ray.nodes():
        has = node["Resources"]
        if node["Alive"] and all(
            name in has and has[name] >= many for name, many in needs.items() if many or ":" in name
        ):
            return str(node["NodeID"])
    return ""


def _connected(connect: Connect) -> Connected | NotConnected:
    """Be a driver of the cluster, if it can be had."""
    host, _, port = connect.address.rpartition(":")
    try:
        if port.isdecimal():
            socket.create_connection((host.strip("[]"), int(port)), KNOCK).close()  # Ray itself would try for a minute
        ray.init(
            connect.address,
            runtime_env=json.loads(connect.runtime_env) if connect.runtime_env else None,
            log_to_driver=False,  # what agents print is the engine's to log
            logging_level=logging.WARNING,
            configure_logging=False,
        )
    except Exception as error:  # noqa: BLE001 - of whatever kind it is, it is said to the engine
        return NotConnected(f"{type(error).__name__}: {error}"[:MAX_TEXT])
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    return Connected(str(ray.get_runtime_context().gcs_address), nodes)


async def _serve(engine: socket.socket, connected: Connected | NotConnected) -> None:
    engine.setblocking(False)
    driver = Driver(engine)
    await driver.say(connected)
    if isinstance(connected, Connected):
        await driver.serve()


def main() -> None:
    """Serve the engine that holds the other end of the socket."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what an operator has not asked for is not sent
    with socket.socket(fileno=int(sys.argv[1])) as engine:
        engine.set_inheritable(False)
        connect = CODEC.read(engine.recv(MAX_MESSAGE))
        assert isinstance(connect, Connect), "the engine says first where the cluster is"  # noqa: S101 - for the reader
        connected = _connected(connect)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # only now: Ray has handlers of its own
            signal.signal(number, signal.SIG_IGN)  # the engine says when it is over
        asyncio.run(_serve(engine, connected))
    ray.shutdown()


if __name__ == "__main__":
    main()
