"""The console where it is not development: inside a page that signs its user in, and with traces to look at."""

import json
import re
from collections.abc import Iterator

import jwt
import pytest
from playwright.sync_api import Browser, expect

from tests.support.console import ask, ends
from tests.support.services import Service, http_status
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway

SECRET = "a secret of the tests, that is long enough"
TRACES = "https://traces.example.com/trace/{trace_id}"


def token_of(user: str) -> str:
    return jwt.encode({"sub": user, "exp": 4_000_000_000}, SECRET, "HS256")


@pytest.fixture(scope="module")
def embedding() -> Iterator[tuple[Service, Service]]:
    """A gateway whose origin may embed the console of another, which is for those who are signed in."""
    with (
        start_engine(agents="tests.agents.probes", JWT_SECRET=SECRET) as back,
        start_gateway(back.address) as home,
        start_gateway(back.address, ORIGINS=f"http://{home.address}", TRACE_PAGE=TRACES) as front,
    ):
        yield home, front


def test_a_page_embeds_it(chrome: Browser, embedding: tuple[Service, Service]) -> None:
    """The page around it gives the token; no field has it, and the run's trace is a link."""
    home, front = embedding
    page = chrome.new_page(bypass_csp=True)
    page.goto(f"http://{home.address}/healthz")
    page.evaluate(
        """([address, token]) => {
          addEventListener("message", ({ data, source }) => {
            if (data?.runwire === "ready") source.postMessage({ runwireToken: token }, address);
          });
          const frame = Object.assign(document.createElement("iframe"), { src: address, width: 1200, height: 700 });
          document.body.replaceChildren(frame);
        }""",
        [f"http://{front.address}", token_of("alice")],
    )
    inside = page.frames[-1]
    inside.wait_for_selector("#engine.up")
    inside.select_option("#agent", "echo")
    inside.fill("#input", "from inside")
    inside.press("#input", "Enter")
    expect(page.frame_locator("iframe").locator(".turn .answer")).to_have_text("from inside")
    assert re.fullmatch(
        r"https://traces\.example\.com/trace/[0-9a-f]{32}", inside.get_attribute("#trace", "href") or ""
    )
    page.close()


def test_no_other_page_embeds_it(chrome: Browser, embedding: tuple[Service, Service]) -> None:
    """A page that isn't named sees nothing of it."""
    home, front = embedding
    page = chrome.new_page(bypass_csp=True)
    page.goto(f"http://{front.address}/healthz")
    page.evaluate(
        """(src) => document.body.replaceChildren(Object.assign(document.createElement("iframe"), { src }))""",
        f"http://{home.address}/",
    )
    expect(page.frame_locator("iframe").locator("#ask")).to_have_count(0)
    page.close()


def test_what_it_has_to_know(embedding: tuple[Service, Service], chrome: Browser) -> None:
    """Strangers are told nothing; where there are keys nobody is told where the engine is."""
    _, front = embedding
    assert http_status(front, "/v1/console") == 401
    page = chrome.new_page()
    answer = page.request.get(
        f"http://{front.address}/v1/console", headers={"Authorization": f"Bearer {token_of('a')}"}
    )
    assert json.loads(answer.body()) == {"isDevelopment": False, "engine": "", "tracePage": TRACES}
    page.close()


def test_a_trace_page_that_is_none() -> None:
    """What is no address of a trace stops the boot."""
    for wrong in ("javascript:alert({trace_id})", "https://example.com/"):
        with start_gateway("127.0.0.1:1", TRACE_PAGE=wrong) as service:
            assert service.wait() == 2
            assert "{trace_id}" in service.lines[-1]


def test_the_trace_is_the_runs(chrome: Browser) -> None:
    """A run is under the trace that is linked."""
    with (
        start_engine(agents="tests.agents.nasty") as back,
        start_gateway(back.address, TRACE_PAGE=TRACES) as front,
    ):
        page = chrome.new_page()
        page.goto(f"http://{front.address}/")
        page.wait_for_selector("#engine.up")
        turn = ask(page, "tracer", "Which trace?")
        ends(turn, "done")
        linked = (page.get_attribute("#trace", "href") or "").rpartition("/")[2]
        assert turn.locator(".answer").inner_text().split("-")[1] == linked
        page.close()
