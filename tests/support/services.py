"""Our services, as real processes on loopback ports of their own."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from tests.support.times import HELD, PATIENCE

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

MISSING = " cannot be had on this machine"

looks_inside = pytest.mark.skipif(os.geteuid() != 0, reason=f"root{MISSING}")
"""Marks a test that looks into a process of the engine's: these let nobody in but root."""

Record = dict[str, Any]

STRICT = "TESTS_STRICT"
"""Set while services are to run strictly: whatever asyncio and Python can find to say against them is an error."""
STRICTLY = {
    "PYTHONDEVMODE": "1",  # with asyncio's own debugging
    "PYTHONMALLOC": "pymalloc",  # but for the allocator's, which takes the memory that runs are bounded by
    "PYTHONWARNINGS": "error",
    "HELD_LIMIT": str(HELD),
}
WATCH = str(ROOT / "tests" / "support" / "watch")
"""The folder that makes a service tell of callbacks that hold its loop."""


class Service:
    """A running service. What it logs is read all the time, and can be waited for."""

    def __init__(
        self, command: str, *flags: str, env: dict[str, str] | None = None, before: Sequence[str] = ()
    ) -> None:
        # Output that nobody reads would stop the service; unbuffered or not, it ends up in `records`.
        self._is_strict = STRICT in os.environ
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RUNWIRE_")}
        environ |= {"PYTHONPATH": str(ROOT)} | (env or {})
        if self._is_strict:
            environ |= STRICTLY | {"PYTHONPATH": f"{environ['PYTHONPATH']}:{WATCH}"}
        self.process = subprocess.Popen(
            [*before, BIN / command, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environ,
        )
        self.records: list[Record] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._closed = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def address(self) -> str:
        """Where it serves. Waits until it does."""
        return str(self.wait_for(lambda record: record["event"] == "serving")["address"])

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def operations(self) -> str:
        """Where operators look at it."""
        return str(self.wait_for(lambda record: record["event"] == "serving")["operations"])

    @property
    def admin(self) -> str:
        """Where operators call it."""
        return str(self.wait_for(lambda record: record["event"] == "serving")["admin"])

    def figures(self) -> dict[str, float]:
        """Return its figures, each by its name and labels: `runs_total{agent="echo"}`."""
        with urllib.request.urlopen(f"http://{self.operations}/metrics", timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    @property
    def lines(self) -> list[str]:
        """What it said that is no log record."""
        return [record["line"] for record in self.records if "line" in record]

    def wait_for(self, wanted: Callable[[Record], bool], patience: float = PATIENCE) -> Record:
        """Wait until something is logged, now or earlier."""

        def found() -> Record | None:
            return next((record for record in self.records if "event" in record and wanted(record)), None)

        with self._news:
            self._news.wait_for(lambda: found() or self._closed, patience)
        if record := found():
            return record
        raise AssertionError(f"not logged: {self.records[-20:]}")

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait until it ends by itself, and return its exit status."""
        status = self.process.wait(patience)
        self._reader.join(patience)
        assert self.process.stdout
        self.process.stdout.close()
        return status

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """Ask it to stop, and return its exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def pause(self) -> None:
        """Let it do nothing more for a while."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without asking."""
        self.process.kill()
        self.wait()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            try:
                record: Record = json.loads(line)
            except ValueError:
                record = {"line": line.rstrip("\n")}
            with self._news:
                self.records.append(record)
                self._news.notify_all()
        with self._news:
            self._closed = True
            self._news.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()
        else:
            self.wait()
        if self._is_strict and error is None:
            assert held(self) == [], "a callback held the loop"


LISTENING = {"LISTEN": "127.0.0.1:0", "OPERATIONS_LISTEN": "127.0.0.1:0"}
ADMIN = {"ADMIN_LISTEN": "127.0.0.1:0"}


def engine(
    *flags: str,
    agents: str = "tests.agents.probes",
    folder: str = "",
    before: Sequence[str] = (),
    **env: str,
) -> Service:
    """Start an engine with the tests' agents, or those in a folder. Settings are given as `MAX_RUNS="3"`."""
    settings = LISTENING | ADMIN | {"AGENTS": agents, "DRAIN_GRACE": "1", "RUNS_PER_MINUTE": "1000000"} | env
    if not any(name.startswith("JWT_") for name in env):  # without keys, everybody is believed
        settings = {"DEVELOPMENT": "true"} | settings
    named = {f"RUNWIRE_ENGINE_{name}": value for name, value in settings.items()}
    return Service("engine-service", *flags, env=named | {"PYTHONPATH": f"{ROOT}:{folder}"}, before=before)


def gateway(engine: str, *flags: str, folder: str = "", before: Sequence[str] = (), **env: str) -> Service:
    """Start a gateway in front of an engine's address."""
    settings = LISTENING | {"ENGINE": engine, "DRAIN_GRACE": "1", "SOCKETS_PER_MINUTE": "1000000"} | env
    named = {f"RUNWIRE_GATEWAY_{name}": value for name, value in settings.items()}
    return Service("edge-gateway", *flags, env=named | {"PYTHONPATH": f"{ROOT}:{folder}"}, before=before)


def free_address() -> str:
    """Return an address of loopback where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


ABOUT_SETTINGS = ("development: ", "agents run as root", "no TLS on a public", "tokens go to a remote", "pages from")
"""What a service warns of when it begins: what its operator may not have meant, and these tests mean."""


def since_boot(service: Service) -> list[Record]:
    """Return what a service has logged since it serves."""
    places = (place for place, record in enumerate(service.records) if record.get("event") == "serving")
    seen = service.records[next(places, len(service.records)) :]
    return [record for record in seen if not str(record.get("event")).startswith(ABOUT_SETTINGS)]


def held(service: Service) -> list[Record]:
    """Return the callbacks that held a watched service's loop for too long, once it serves."""
    return [record for record in since_boot(service) if record.get("event") == "held"]


def zygote_of(engine: Service) -> int:
    """Return the process that an engine's runs are forked from."""
    assert engine.address
    [zygote] = zygotes_of(engine)
    return zygote


def zygotes_of(engine: Service) -> list[int]:
    """Return the zygotes that an engine has and that live."""
    found = []
    for child in psutil.Process(engine.pid).children():
        with suppress(psutil.Error):
            if "zygote" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


def http_status(service: Service, path: str, **headers: str) -> int:
    """Return what a plain request gets."""
    request = urllib.request.Request(f"http://{service.address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def is_gone(pid: int) -> bool:
    """Tell whether a process is dead, be it reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until(condition: Callable[[], bool], patience: float = PATIENCE) -> float:
    """Wait until something is so, and return how long it took. Fails when it doesn't become so."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + patience, "it didn't happen"
        await asyncio.sleep(0.001)
    return time.monotonic() - started


@contextmanager
def both(**env: str) -> Generator[tuple[Service, Service]]:
    """Start an engine with a gateway in front."""
    with engine(**env) as back, gateway(back.address) as front:
        assert front.address
        yield back, front
