"""The console in Chromium and Firefox: make console."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from tests.support.browser import NAMES
from tests.support.node import NODE
from tests.support.services import MISSING, ROOT, Service, both

pytestmark = [pytest.mark.console, pytest.mark.timeout(600)]

AGENTS = ",".join(f"tests.agents.{name}" for name in ("asking", "rogues", "declaring", "nasty"))
BROWSERS = {"firefox": ("firefox", "firefox-esr"), "chrome": NAMES}


@pytest.fixture(scope="module")
def front() -> Iterator[Service]:
    with both(AGENTS=AGENTS, MAX_RUNS_PER_USER="100") as (_, service):
        yield service


@pytest.mark.parametrize("browser", ["chrome", "firefox"])
def test_in_browsers(front: Service, browser: str) -> None:
    """By keyboard alone, for everybody, as it looked before, with what hostile agents say, and with 100,000 events."""
    if not any(shutil.which(name) for name in BROWSERS[browser]):
        pytest.skip(browser.capitalize() + MISSING)
    command: list[str | Path] = [
        NODE,
        "--test",
        "--test-timeout=180000",
        "--test-reporter=spec",
        f"--test-name-pattern=^{browser}",
    ]
    env = os.environ | {"CONSOLE": f"http://{front.address}"}
    with TemporaryFile("w+") as said:  # and no pipe, which what a browser leaves behind would keep open
        tests = ROOT / "tests" / "console" / "browsers.test.mjs"
        done = subprocess.run([*command, tests], env=env, stdout=said, stderr=said, timeout=500, check=False)
        said.seek(0)
        text = said.read()
    assert done.returncode == 0, text[-10_000:]
    sys.stdout.write(text)
