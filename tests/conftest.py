"""What all tests share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.browser import browser, chromium
from tests.support.services import MISSING, ROOT, STRICT, Service
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway

LEFT_OUT = set[str]()


@pytest.fixture(scope="module", autouse=True)
def strictness(request: pytest.FixtureRequest) -> Iterator[None]:
    """Services run strictly, unless something is measured: that would measure the strictness."""
    tests = (test for test in request.session.items if test.path == request.path)
    with pytest.MonkeyPatch.context() as patch:
        if not all(test.get_closest_marker("measures") for test in tests):
            patch.setenv(STRICT, "1")
        yield


@pytest.fixture(autouse=True)
def measured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a single test that measures starts beside others that don't is as operators have it, too."""
    if request.node.get_closest_marker("measures"):
        monkeypatch.delenv(STRICT, raising=False)


@pytest.fixture(scope="module")
def engine() -> Iterator[Service]:
    """An engine that a module's tests share."""
    with start_engine() as service:
        assert service.address, "it serves"
        yield service


@pytest.fixture(scope="module")
def gateway(engine: Service) -> Iterator[Service]:
    """A gateway in front of the shared engine."""
    with start_gateway(engine.address) as service:
        yield service


def tool(name: str) -> str:
    """Return the path of a tool that `make` set up; without it the test is skipped, and the run's last line says so."""
    found = shutil.which(name, path=f"{ROOT / '.tools'}:{ROOT / '.venv' / 'bin'}")
    if found is None:
        pytest.skip(name + MISSING)
    return found


@pytest.fixture(scope="session")
def grpcurl() -> Path:
    return Path(tool("grpcurl"))


@pytest.fixture(scope="session")
def buf() -> Path:
    return Path(tool("buf"))


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    """A real Chromium. It has the main thread's loop as long as it is there: its modules have no async tests."""
    executable = chromium()
    if executable is None:
        pytest.skip("Chromium" + MISSING)
    with browser(executable) as started:
        yield started


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Hear of what was left out, in whichever process."""
    if report.skipped and isinstance(report.longrepr, tuple) and report.longrepr[2].endswith(MISSING):
        LEFT_OUT.add(report.longrepr[2].removeprefix("Skipped: ").removesuffix(MISSING))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Say last what was left out."""
    if LEFT_OUT:
        print(f"left out, since these tools cannot be had here: {', '.join(sorted(LEFT_OUT))}")
