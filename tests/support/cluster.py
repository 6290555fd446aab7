"""A Ray cluster of several nodes, all on this machine's loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil

from tests.support.services import ROOT, Service
from tests.support.services import engine as start_engine

ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""Lets Ray take 127.0.0.1 for a node's address, as it does by itself where it expects no second machine."""


class Node(NamedTuple):
    id: str
    raylet: int


class Cluster:
    """The cluster, and the nodes that were added to its first."""

    def __init__(self, folder: Path | None = None) -> None:
        environ = os.environ | ON_LOOPBACK | {"PYTHONPATH": f"{ROOT}:{folder or ''}"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ray_nodes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environ,
            cwd=ROOT,
        )
        self.address: str = self._read()["address"]

    def add(self, **has: Any) -> Node:
        """Add a node that has so much."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(has) + "\n")
        self._process.stdin.flush()
        told = self._read()
        return Node(told["node"], told["raylet"])

    def engine(self, *, agents: str, **settings: str) -> Service:
        """Start an engine on the cluster's first node, all of whose agents run on the cluster that don't say."""
        options = {"ISOLATION": "ray", "RAY_ADDRESS": self.address, "MAX_RUNS_PER_USER": "32"} | settings
        return start_engine(agents=agents, **options)

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the cluster's nodes."""
        return psutil.Process(self._process.pid).children(recursive=True)

    def _read(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        while line and not line.startswith("{"):  # Ray's own words
            line = self._process.stdout.readline()
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end()

    def end(self) -> None:
        """End all of it."""
        processes = self.processes()
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()
        assert psutil.wait_procs(processes, 10)[1] == [], "the cluster ends with its tests"
