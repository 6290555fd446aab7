"""The page of what runs, in a real Chromium."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from playwright.sync_api import Browser, Page, expect
from runwire.v1.engine_pb2 import RunRequest
from runwire.v1.engine_pb2_grpc import EngineServiceStub

from tests.support.services import Service
from tests.support.services import engine as start_engine

pytestmark = pytest.mark.operations

MARKUP = "<img src=x onerror=document.title='gone'>"


@pytest.fixture
def back() -> Iterator[Service]:
    with start_engine(agents="tests.agents.probes,tests.agents.asking") as service:
        yield service


@pytest.fixture
def page(chrome: Browser, back: Service) -> Iterator[Page]:
    shown = chrome.new_page(viewport={"width": 1200, "height": 420})
    errors: list[str] = []
    shown.on("pageerror", lambda error: errors.append(str(error)))
    shown.goto(f"http://{back.operations}/")
    yield shown
    shown.close()
    assert errors == []


def begun(channel: grpc.Channel, user: str, agent: str, **fields: Any) -> Any:
    """Begin a run, and wait for its first event."""
    metadata = (("authorization", f"Bearer dev:{user}"),)
    call = EngineServiceStub(channel).Run(RunRequest(agent=agent, **fields), metadata=metadata)
    next(iter(call))
    return call


def test_what_runs(page: Page, back: Service) -> None:
    """Only an operator sees it; it is text, follows what happens, and keeps no token."""
    expect(page.locator("#state")).to_have_text("Runs are for operators: give a token.")
    page.fill("#token", "dev:ann")
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text("You are no operator of this engine.")
    page.fill("#token", "dev:operator")
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text("Nothing runs.")
    with grpc.insecure_channel(back.address) as channel:
        calls = [
            begun(channel, "ann", "waiter"),
            begun(channel, "ben", "payer"),
            begun(channel, "cem", "counter", input="1", thread_id=MARKUP),
        ]
        expect(page.locator("#runs tr")).to_have_count(2)  # the third is over
        expect(page.locator("#runs tr").nth(1)).to_contain_text("its user, to approve pay")
        expect(page.locator("#runs tr").first).to_contain_text("ann")
        expect(page.locator("#runs tr").first).to_contain_text("MiB")
        expect(page.locator("#engine")).to_contain_text("/")
        if folder := os.environ.get("PICTURES"):
            page.screenshot(path=Path(folder) / "runs.png")
        for call in calls:
            call.cancel()
    expect(page.locator("#state")).to_have_text("Nothing runs.")
    assert page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])") == '[{},{},""]'
    back.stop()
    expect(page.locator("#state")).to_have_text("The engine does not answer.")
