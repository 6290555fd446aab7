"""A loop that is slower than its run: what it doesn't take costs the page nothing, and is not lost."""

import json
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.test_client import gateway_of_probes, in_chromium, in_node
from tests.support.node import CLIENT, NODE
from tests.support.services import Service

__all__ = ["gateway_of_probes"]

pytestmark = pytest.mark.measures

CHECKS = Path(__file__).with_name("slow.mjs")
MOST = 20e6
"""Bytes that a page may grow by. What would come in the meantime is some 100 MB."""

TAKEN = """
const events = runwire.run({ agent: "flood", resumeWindow: WINDOW }, { url })[Symbol.asyncIterator]();
for (let taken = 0; taken < 600; taken++) {
  await events.next();
  await new Promise((resolve) => setTimeout(resolve, 5));
}
"""


@pytest.mark.parametrize("window", [0, 60])
def test_memory_in_node(gateway_of_probes: Service, window: int) -> None:
    """Before a loop that is slow for seconds, a run costs Node no memory, whatever it says meanwhile."""
    script = f"""
    import * as runwire from {json.dumps(str(CLIENT))};
    const url = "ws://{gateway_of_probes.address}/v1/stream";
    const used = () => (gc(), process.memoryUsage().heapUsed + process.memoryUsage().external);
    const before = used();
    {TAKEN.replace("WINDOW", str(window))}
    console.log(used() - before);
    process.exit(0);
    """
    done = subprocess.run(
        [NODE, "--expose-gc", "--input-type=module", "--eval", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    print(f"grown by {int(done.stdout) / 1e6:.1f} MB")
    assert int(done.stdout) < MOST


@pytest.mark.parametrize("window", [0, 60])
def test_memory_in_chromium(gateway_of_probes: Service, chrome: Browser, window: int) -> None:
    """Before a loop that is slow for seconds, a run costs Chromium no memory, whatever it says meanwhile."""
    page = chrome.new_page()
    page.goto(f"http://{gateway_of_probes.address}/healthz")
    inspector = page.context.new_cdp_session(page)

    def used() -> float:
        inspector.send("HeapProfiler.collectGarbage")
        usage = inspector.send("Runtime.getHeapUsage")
        return float(usage["usedSize"] + usage["embedderHeapUsedSize"] + usage["backingStorageSize"])

    before = used()
    page.evaluate(
        f"""async () => {{
        const runwire = await import("/runwire.js");
        const url = "ws://{gateway_of_probes.address}/v1/stream";
        {TAKEN.replace("WINDOW", str(window))}
        window.events = events;
        }}"""
    )
    grown = used() - before
    page.close()
    print(f"grown by {grown / 1e6:.1f} MB")
    assert grown < MOST


@pytest.mark.force
def test_in_node(gateway_of_probes: Service) -> None:
    """Nothing is missing, twice or left behind when a loop is slow, in Node."""
    in_node(gateway_of_probes, CHECKS)


def test_in_chromium(gateway_of_probes: Service, chrome: Browser) -> None:
    """Nothing is missing, twice or left behind when a loop is slow, in Chromium."""
    in_chromium(gateway_of_probes, chrome, CHECKS)
