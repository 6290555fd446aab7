"""runwire.js, in Node and in Chromium."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route
from runwire.v1.events_pb2 import Event, FailureReason

from tests.support.node import CLIENT, node
from tests.support.services import ROOT, Service, both, is_gone
from tests.support.times import UNIT

CHECKS = Path(__file__).with_name("client.mjs")
RUN = """
const results = {};
await Promise.all(Object.entries(checks(runwire, url)).map(async ([sentence, check]) => {
  results[sentence] = await check().then((more) => more ?? {}, (error) => ({ error: String(error?.stack ?? error) }));
}));
"""


@pytest.fixture(scope="module")
def gateway_of_probes() -> Iterator[Service]:
    agents = "tests.agents.asking,tests.agents.probes,tests.agents.rogues,tests.agents.dirt"
    with both(AGENTS=agents, MAX_RUNS_PER_USER="100") as (_, front):
        yield front


def check(results: dict[str, Any]) -> None:
    assert len(results) >= 9
    for sentence, result in results.items():
        assert "error" not in result, f"{sentence}: {result['error']}"
        if "pid" in result:
            _wait_gone(result["pid"], sentence)


def _wait_gone(pid: int, sentence: str) -> None:
    until = time.monotonic() + 2 * UNIT
    while not is_gone(pid):
        assert time.monotonic() < until, sentence


def in_node(front: Service, checks: Path) -> None:
    """Run checks in Node."""
    script = f"""
    import * as runwire from {json.dumps(str(CLIENT))};
    import {{ checks }} from {json.dumps(str(checks))};
    const url = "ws://{front.address}/v1/stream";
    {RUN}
    console.log(JSON.stringify(results));
    """
    check(json.loads(node("--input-type=module", "--eval", script)))


def in_chromium(front: Service, chrome: Browser, checks: Path) -> None:
    """Run checks in Chromium, on a page of the gateway's own."""
    page = chrome.new_page(bypass_csp=True)

    def answer(route: Route) -> None:
        route.fulfill(body=checks.read_text(), content_type="text/javascript")

    page.route("**/checks.mjs", answer)
    page.goto(f"http://{front.address}/healthz")
    results = page.evaluate(
        f"""async () => {{
        const runwire = await import("/runwire.js");
        const {{ checks }} = await import("/checks.mjs");
        const url = "ws://{front.address}/v1/stream";
        {RUN}
        return results;
        }}"""
    )
    page.close()
    check(results)


def test_in_node(gateway_of_probes: Service) -> None:
    """Everything that the client promises holds in Node."""
    in_node(gateway_of_probes, CHECKS)


def test_in_chromium(gateway_of_probes: Service, chrome: Browser) -> None:
    """Everything that the client promises holds in Chromium, on a page of the gateway's own."""
    in_chromium(gateway_of_probes, chrome, CHECKS)


@pytest.mark.parametrize(
    ("heartbeat", "silence", "seconds"), [(None, None, 60), ("15s", None, 60), ("100s", None, 205), ("100s", 7, 7)]
)
def test_silence(
    gateway_of_probes: Service, chrome: Browser, heartbeat: str | None, silence: int | None, seconds: int
) -> None:
    """A connection is lost after a minute without a frame, after two heartbeats if they are rare, or as one says."""
    page = chrome.new_page()
    page.clock.install()
    page.goto(f"http://{gateway_of_probes.address}/healthz")
    page.evaluate(
        """async ([heartbeat, silence]) => {
        const { run } = await import("/runwire.js");
        class Quiet extends EventTarget {
          readyState = WebSocket.OPEN;
          constructor() {
            super();
            queueMicrotask(() => this.dispatchEvent(new Event("open")));
          }
          send() {
            const data = JSON.stringify({ runId: "1", heartbeat, events: [{ seq: 1, agentStarted: {} }] });
            this.dispatchEvent(new MessageEvent("message", { data }));
          }
          close() {}
        }
        const events = run({ agent: "quiet" }, { silence, WebSocket: Quiet })[Symbol.asyncIterator]();
        await events.next();
        events.next().catch(({ code }) => (window.lost = code));
        }""",
        [heartbeat, silence],
    )
    page.clock.run_for((seconds - 1) * 1000)
    assert page.evaluate("window.lost") is None
    page.clock.run_for(2000)
    assert page.evaluate("window.lost") == 1006
    page.close()


def test_its_types() -> None:
    """The types name what the module exports, and each event that there is."""
    types = CLIENT.with_name("runwire.d.ts").read_text()
    for name in ("run", "resume", "answer", "agents", "runs", "RunwireError"):
        assert f"export function {name}(" in types or f"export class {name}" in types
        assert re.search(rf"export (async )?(function|class) {name}\b", CLIENT.read_text())
    for field in Event.DESCRIPTOR.oneofs_by_name["kind"].fields:
        assert f'type: "{field.name}"' in types
        for inner in field.message_type.fields if field.message_type else ():
            assert inner.json_name in types
    for reason in FailureReason.keys():  # noqa: SIM118 - it is no dict
        assert f'"{reason}"' in types


@pytest.mark.parametrize("example", ["page.js", "resume.js", "answer.js"])
def test_the_examples_of_the_readme(gateway_of_probes: Service, chrome: Browser, example: str) -> None:
    """The README's pages run in Chromium."""
    page = chrome.new_page(bypass_csp=True)
    page.goto(f"http://{gateway_of_probes.address}/healthz")
    with page.expect_console_message(lambda message: message.text.startswith("agent_completed")):
        page.add_script_tag(type="module", content=(ROOT / "examples" / example).read_text())
    page.close()
