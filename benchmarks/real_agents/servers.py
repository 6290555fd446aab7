"""Who is measured: an agent of a framework, in Runwire and in FastAPI."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.client import Counter, websocket
from benchmarks.contestants.line_up import serving
from benchmarks.real_agents.memory import FOLDER
from tests.support.services import ROOT, both

HERE = "benchmarks.real_agents"
STARTED, WORD, COMPLETED = b'"agentStarted"', b'"agentMessage"', b'"agentCompleted"'
ASKED, PARSE = "How is the weather in Oslo?", "Parse it."


@dataclass
class Server:
    """One that runs."""

    port: int
    path: str
    protocol: str
    frame: Callable[[str, str], bytes]
    """What asks an agent for something."""
    engine: psutil.Process | None = None
    told: Path | None = None
    """The folder where each run's process writes what it took."""

    async def open(self, agent: str, asked: str, mark: bytes) -> Counter:
        """Begin a run on a connection of its own, and count a mark."""
        counter = await websocket(self.port, self.path, mark, self.protocol)
        counter.seek(STARTED, WORD, COMPLETED)
        counter.send_frame(self.frame(agent, asked))
        return counter

    async def run(self) -> tuple[float, float]:
        """Do a run; return the milliseconds until its first event, and until its first word."""
        begun = time.perf_counter()
        counter = await self.open("agent", ASKED, COMPLETED)
        await counter.wait_for(1)
        counter.close()
        return (counter.seen[STARTED] - begun) * 1000, (counter.seen[WORD] - begun) * 1000


@contextmanager
def runwire(framework: str, isolation: str) -> Generator[Server]:
    """Runwire, through its gateway."""

    def frame(agent: str, asked: str) -> bytes:
        return json.dumps({"run": {"agent": agent, "input": asked}}).encode()

    agents = f"{HERE}.{framework}_app"
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER] = folder if isolation == "process" else ""
        settings = {
            "AGENTS": f"{agents}:agent,{agents}:ticking", "ISOLATION": isolation, "MAX_SPARES": "64",
            "MAX_RUNS_PER_USER": "200", "DEMO_AGENTS": "false",
        }  # fmt: skip
        with both(**settings) as (back, front):
            engine = psutil.Process(back.pid)
            yield Server(front.port, "/v1/stream", "runwire.v1.json", frame, engine, Path(folder))


@contextmanager
def fastapi(framework: str, workers: int) -> Generator[Server]:
    """FastAPI, with the agent in the web process."""

    def frame(agent: str, asked: str) -> bytes:
        return json.dumps({"agent": agent, "input": asked}).encode()

    def command(port: int) -> list[str | Path]:
        program = [sys.executable, "-m", "uvicorn", f"{HERE}.fastapi_app:app", "--log-level", "error"]
        return [*program, "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]

    with serving(command, ROOT, {"REAL_AGENTS": framework, "PYTHONPATH": str(ROOT)}) as (port, _):
        yield Server(port, "/run", "", frame)


OURS, TASK, ONE, TWO = "Runwire, process", "Runwire, task", "FastAPI, one worker", "FastAPI, two workers"
SERVERS: dict[str, Callable[[str], AbstractContextManager[Server]]] = {
    OURS: lambda framework: runwire(framework, "process"),
    TASK: lambda framework: runwire(framework, "task"),
    ONE: lambda framework: fastapi(framework, 1),
    TWO: lambda framework: fastapi(framework, 2),
}


@contextmanager
def model_server() -> Generator[None]:
    """Serve the model that all of them call."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ |= {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "none"}
    with subprocess.Popen([sys.executable, "-m", f"{HERE}.model_server", str(port)], cwd=ROOT) as model:
        try:
            yield
        finally:
            model.terminate()
