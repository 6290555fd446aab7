"""Who is measured: how each is started, and how one of its streams is opened."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio
import psutil
from runwire.v1.engine_pb2 import RunRequest
from runwire.v1.gateway_pb2 import ClientFrame

from benchmarks.client import Counter, GrpcCounter, http, websocket
from benchmarks.contestants.agent_servers import AGENT_SERVERS, AgentServer
from tests.support.services import ROOT, Service, both

HERE = Path(__file__).parent
PATIENCE = 60.0
"""Seconds that a server has to start."""
LIMITS = {"MAX_RUNS": "2000", "MAX_RUNS_PER_USER": "2000", "AGENTS": "benchmarks.agents"}


class Stream(Protocol):
    """One stream of one run."""

    def start(self, asked: str, times: int) -> None:
        """Ask for a run: `numbers`, `wait`, `busy` or `tick`."""
        ...

    async def wait_for(self, events: int) -> None:
        """Wait until so many events have come."""
        ...

    def close(self) -> None:
        """Leave without a word."""
        ...


@dataclass
class Running:
    """A contestant whose server runs."""

    opener: Callable[[], Awaitable[Stream]]
    roots: list[psutil.Process]
    counter: Callable[[Stream], Counter | None] = lambda _: None
    """What a stream's bytes can be looked at with, where it is one TCP connection."""
    opened: list[Stream] = field(default_factory=list)

    async def open(self) -> Stream:
        """Open a stream."""
        stream = await self.opener()
        self.opened.append(stream)
        return stream

    def hang_up(self) -> None:
        """Leave every stream that there still is."""
        for stream in self.opened:
            stream.close()
        self.opened.clear()

    def processes(self) -> list[psutil.Process]:
        """Return the server's processes, and their children."""
        return [each for root in self.roots for each in (root, *root.children(recursive=True))]


@dataclass
class Contestant:
    """Somebody who is measured."""

    name: str
    serve: Callable[[], AbstractContextManager[Running]]
    more: int = 2
    """Events of a run besides those that are asked for."""
    words: frozenset[str] = field(default_factory=lambda: frozenset({"numbers", "wait", "busy", "tick"}))
    """What its agent can be asked for."""
    is_ours: bool = False
    share: float = 1.0
    """The part of the events that it is asked for, where it would take minutes for all of them."""
    most: int = 1000
    """How many streams it is asked for at once."""


class OverWebSocket:
    """A run over a WebSocket."""

    def __init__(self, counter: Counter, frame: Callable[[str, int], bytes], opcode: int) -> None:
        self.counter = counter
        self._frame = frame
        self._opcode = opcode

    def start(self, asked: str, times: int) -> None:
        """Ask for a run."""
        self.counter.send_frame(self._frame(asked, times), self._opcode)

    async def wait_for(self, events: int) -> None:
        """Wait until so many events have come."""
        await self.counter.wait_for(events)

    def close(self) -> None:
        """Leave."""
        self.counter.close()


class OverGrpc:
    """A run over gRPC."""

    def __init__(self, counter: GrpcCounter, agent: str) -> None:
        self._counter = counter
        self._agent = agent

    def start(self, asked: str, times: int) -> None:
        """Ask for a run."""
        self._counter.start(RunRequest(agent=self._agent, input=asked, parameters={"times": times}))

    async def wait_for(self, events: int) -> None:
        """Wait until so many events have come."""
        await self._counter.wait_for(events)

    def close(self) -> None:
        """Leave."""
        self._counter.close()


class OverHttp:
    """A run as a POST whose answer streams, after the requests that have to come before it."""

    def __init__(self, port: int, server: AgentServer) -> None:
        self._port = port
        self._server = server
        self._counter: Counter | None = None
        self._requests: list[tuple[str, str, bytes]] = []

    def start(self, asked: str, times: int) -> None:
        """Ask for a run."""
        self._requests = self._server.prepare(str(times) if asked == "numbers" else asked)

    async def wait_for(self, events: int) -> None:
        """Wait until so many events have come."""
        while self._requests:
            method, path, body = self._requests.pop(0)
            is_last = not self._requests
            counter = await http(self._port, self._server.mark if is_last else b"HTTP/1.1 2")
            head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Type: application/json\r\n"
            more = f"Accept: text/event-stream\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            counter.transport.write((head + more).encode() + body)
            if is_last:
                self._counter = counter
            else:
                await counter.wait_for(1)
                counter.close()
        assert self._counter
        await self._counter.wait_for(events)

    def close(self) -> None:
        """Leave."""
        if self._counter:
            self._counter.close()


def _runwire(agent: str, kind: str) -> Callable[[], AbstractContextManager[Running]]:
    """Runwire, through its gateway as JSON or binary frames, or over gRPC."""

    @contextmanager
    def serve() -> Generator[Running]:
        with both(**LIMITS) as (back, front):
            channel = grpc.aio.insecure_channel(back.address)
            yield Running(lambda: opened(front, channel), [_process(back), _process(front)], _counter)

    async def opened(front: Service, channel: grpc.aio.Channel) -> Stream:
        mark = f"\x1a\x07{agent}".encode()  # field 3 of an event
        if kind == "grpc":
            return OverGrpc(GrpcCounter(channel, mark), agent)
        if kind == "proto":
            counter = await websocket(front.port, "/v1/stream", mark, "runwire.v1.proto")
            return OverWebSocket(counter, binary, opcode=2)
        return OverWebSocket(await websocket(front.port, "/v1/stream", b'"seq"', "runwire.v1.json"), text, opcode=1)

    def text(asked: str, times: int) -> bytes:
        return json.dumps({"run": {"agent": agent, "input": asked, "parameters": {"times": times}}}).encode()

    def binary(asked: str, times: int) -> bytes:
        return ClientFrame(run=RunRequest(agent=agent, input=asked, parameters={"times": times})).SerializeToString()

    return serve


def _websocket(
    folder: str, path: str, command: Callable[[int], list[str | Path]]
) -> Callable[..., AbstractContextManager[Running]]:
    """Open a server that speaks JSON over a WebSocket, one event a frame."""

    @contextmanager
    def serve() -> Generator[Running]:
        with serving(command, HERE / folder, {}) as (port, process):

            async def opened() -> Stream:
                return OverWebSocket(await websocket(port, path, b'"seq"'), text, opcode=1)

            yield Running(opened, [process], _counter)

    def text(asked: str, times: int) -> bytes:
        return json.dumps({"input": asked, "times": times}).encode()

    return serve


@contextmanager
def _bare_grpc() -> Generator[Running]:
    with serving(lambda port: [sys.executable, "grpc_stream.py", str(port)], HERE / "bare", {}) as (port, process):
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")

        async def opened() -> Stream:
            return OverGrpc(GrpcCounter(channel, b"\x1a\x07numbers"), "numbers")

        yield Running(opened, [process])


def _agent_server(server: AgentServer) -> Callable[[], AbstractContextManager[Running]]:
    @contextmanager
    def serve() -> Generator[Running]:
        def command(port: int) -> list[str | Path]:
            program, *arguments = server.command(port)
            return [ROOT / server.venv / "bin" / program, *arguments]

        with serving(command, HERE / server.folder, server.env) as (port, process):

            async def opened() -> Stream:
                return OverHttp(port, server)

            yield Running(opened, [process])

    return serve


@contextmanager
def serving(
    command: Callable[[int], list[str | Path]], folder: Path, env: dict[str, str]
) -> Generator[tuple[int, psutil.Process]]:
    """Start a server on a free port of loopback, and end it afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    process = subprocess.Popen(
        command(port),
        cwd=folder,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that its workers can be ended with it
    )
    try:
        until = time.monotonic() + PATIENCE
        while not _serves(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{folder} does not serve")
            time.sleep(0.1)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _serves(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _process(service: Service) -> psutil.Process:
    return psutil.Process(service.pid)


def _counter(stream: Stream) -> Counter | None:
    return stream.counter if isinstance(stream, OverWebSocket) else None


def _uvicorn(*more: str) -> Callable[[int], list[str | Path]]:
    uvicorn = ROOT / ".venv-fastapi" / "bin" / "uvicorn"
    return lambda port: [uvicorn, "app:app", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error", *more]


RUNWIRE = [
    Contestant("Runwire, process, JSON", _runwire("numbers", "json"), is_ours=True),
    Contestant("Runwire, process, binary", _runwire("numbers", "proto"), is_ours=True),
    Contestant("Runwire, process, gRPC", _runwire("numbers", "grpc"), is_ours=True),
    Contestant("Runwire, task, JSON", _runwire("numbert", "json"), is_ours=True),
    Contestant("Runwire, task, binary", _runwire("numbert", "proto"), is_ours=True),
]
FASTAPI = [
    Contestant("FastAPI + uvicorn[standard]", _websocket("fastapi", "/run", _uvicorn())),
    Contestant("FastAPI, two workers", _websocket("fastapi", "/run", _uvicorn("--workers", "2"))),
]
LIMITING = [
    Contestant(
        "bare websockets", _websocket("bare", "/", lambda port: [sys.executable, "websocket.py", str(port)]),
        words=frozenset({"numbers", "wait"}),
    ),
    Contestant("bare grpc.aio", _bare_grpc, words=frozenset({"numbers", "wait"})),
]  # fmt: skip
SERVERS = [
    Contestant(
        server.name, _agent_server(server), more=0, share=0.1, most=200, words=frozenset({"numbers", "wait", "busy"})
    )
    for server in AGENT_SERVERS
]
EVERYBODY = [*RUNWIRE, *FASTAPI, *LIMITING, *SERVERS]
