"""What the console shows of how to call: each of it runs as it stands there."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.console import ask, ends, opened
from tests.support.node import CLIENT, NODE
from tests.support.services import ROOT, Service, both

pytestmark = pytest.mark.console

ASKED = """It's "quoted", \\ and 👍 $HOME `date`\nand a second line"""
PARAMETERS = '{"times": 1, "it\'s": ["\\"", null, true, 1.5], "ü": {"deep": "$(date)"}}'
WAYS = ("runwire.js", "Python", "grpcurl", "WebSocket")


@pytest.fixture(scope="module")
def front() -> Iterator[Service]:
    with both(AGENTS="tests.agents.nasty") as (_, service):
        yield service


@pytest.fixture
def page(chrome: Browser, front: Service) -> Iterator[Page]:
    with opened(chrome, front, "dave", viewport={"width": 1360, "height": 860}) as shown:
        yield shown


def shown(page: Page, way: str) -> str:
    page.get_by_role("tab", name="Call it yourself").click()
    page.locator("#call .ways button", has_text=way).click()
    return page.locator("#call code").inner_text()


def run(way: str, code: str, folder: Path, grpcurl: Path) -> str:
    """Do what the page says one has to do to have it, and run it."""
    command: list[str | Path] = []
    if way == "Python":
        (folder / "snippet.py").write_text(code)
        command = [sys.executable, folder / "snippet.py"]
    elif way == "grpcurl":
        command = ["bash", "-c", code.replace("grpcurl", str(grpcurl), 1)]
    else:
        (folder / "runwire.js").write_bytes(CLIENT.read_bytes())
        (folder / "snippet.mjs").write_text(code)
        command = [NODE, folder / "snippet.mjs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{code}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("way", WAYS)
def test_each_runs(page: Page, tmp_path: Path, grpcurl: Path, way: str) -> None:
    """With what was asked, word for word, and what was said before, as the same user: the answer is the same."""
    ends(ask(page, "repeater", ASKED), "done")
    again = ask(page, "repeater", ASKED, PARAMETERS)
    ends(again, "done")
    answer = again.locator(".answer").inner_text()
    heard = json.loads(bytes.fromhex(answer))
    assert (heard["input"], heard["user"], heard["history"][0]) == (ASKED, "dave", ["user", ASKED])
    assert heard["parameters"] == json.loads(PARAMETERS)
    said = run(way, shown(page, way), tmp_path, grpcurl)
    assert answer in said
    expect(page.locator("#call .hint")).not_to_be_empty()
