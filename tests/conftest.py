"""What all tests share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.services import ROOT, Service
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway

LEFT_OUT: list[str] = []


@pytest.fixture(scope="session")
def engine() -> Iterator[Service]:
    """An engine that many tests share."""
    with start_engine() as service:
        yield service


@pytest.fixture(scope="session")
def gateway(engine: Service) -> Iterator[Service]:
    """A gateway in front of the shared engine."""
    with start_gateway(engine.address) as service:
        yield service


def tool(name: str) -> str:
    """Return the path of a tool that `make` set up; without it the test is skipped, and the run's last line says so."""
    found = shutil.which(name, path=f"{ROOT / '.tools'}:{ROOT / '.venv' / 'bin'}")
    if found is None:
        LEFT_OUT.append(name)
        pytest.skip(f"{name} cannot be had on this machine")
    return found


@pytest.fixture(scope="session")
def grpcurl() -> Path:
    return Path(tool("grpcurl"))


@pytest.fixture(scope="session")
def buf() -> Path:
    return Path(tool("buf"))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Say last what was left out."""
    if LEFT_OUT:
        print(f"left out, since these tools cannot be had here: {', '.join(sorted(set(LEFT_OUT)))}")
