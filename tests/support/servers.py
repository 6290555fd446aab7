"""Servers that operators have: Prometheus and nginx, as this machine has them or `make operations` got them."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.services import MISSING, ROOT, free_address
from tests.support.times import PATIENCE, UNIT

DEBIAN = ROOT / ".tools" / "debian"


def found(name: str) -> str:
    """Return where a program is. Skips the test, with its name, where it cannot be had."""
    folders = [DEBIAN / "usr" / "bin", DEBIAN / "usr" / "sbin"]
    path = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, folders)]))
    if path is None:
        pytest.skip(f"{name}{MISSING}")
    return path


class Prometheus:
    """A real one, which scrapes each second whatever it is told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = free_address()
        self.aim()
        rules = ROOT / "deploy" / "prometheus" / "alerts.yml"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [
                {"job_name": f"runwire-{name}", "file_sd_configs": [{"files": [str(folder / f"{name}.json")]}]}
                for name in ("engine", "gateway")
            ],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))  # which is YAML, too
        self.process = subprocess.Popen(
            [
                found("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.address}",
                "--log.level=error",
            ]
        )
        self.until("up or vector(1)")

    def aim(self, engine: str = "", gateway: str = "") -> None:
        """Have it scrape these, and nothing else."""
        for name, address in (("engine", engine), ("gateway", gateway)):
            targets = [{"targets": [address] if address else []}]
            part = self._folder / f"{name}.part"
            part.write_text(json.dumps(targets))
            part.rename(self._folder / f"{name}.json")

    def ask(self, query: str) -> list[Any]:
        """Return what a query finds now."""
        words = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"http://{self.address}/api/v1/query?{words}", timeout=PATIENCE) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
        return found

    def until(self, query: str, *, is_found: bool = True) -> list[Any]:
        """Wait until a query finds something, or nothing."""
        end = time.monotonic() + 2 * PATIENCE
        while True:
            try:
                found = self.ask(query)
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None, "it ended"
                found = []
            if bool(found) == is_found:
                return found
            assert time.monotonic() < end, f"it found {found}: {query}"
            time.sleep(0.2 * UNIT)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)


@contextmanager
def prometheus(folder: Path) -> Iterator[Prometheus]:
    started = Prometheus(folder)
    try:
        yield started
    finally:
        started.stop()
