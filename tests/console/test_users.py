"""What a browser that several people use, or several tabs of one, must not do."""

import json
import time
from collections.abc import Iterator

import jwt
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.support.console import afresh, ask, ends, opened, sign_in
from tests.support.services import Service, both, free_address
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway

pytestmark = pytest.mark.console

SECRET = "a secret of the tests, that is long enough"
AGENTS = "tests.agents.probes,tests.agents.talkers,tests.agents.asking,tests.agents.dirt,tests.agents.nasty"


def token_of(user: str) -> str:
    return jwt.encode({"sub": user, "exp": time.time() + 600}, SECRET, "HS256")


@pytest.fixture(scope="module")
def front() -> Iterator[Service]:
    with both(AGENTS=AGENTS, MAX_RUNS_PER_USER="50") as (_, service):
        yield service


@pytest.fixture
def page(chrome: Browser, front: Service) -> Iterator[Page]:
    with opened(chrome, front, viewport={"width": 1360, "height": 860}) as shown:
        yield shown


def kept(page: Page) -> str:
    return str(page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])"))


def test_a_token_for_an_engine_that_was_away(chrome: Browser) -> None:
    """Before it is known whether this is development, what is typed is a token, and kept nowhere."""
    address = free_address()
    with start_gateway(address) as front:
        page = chrome.new_page()
        page.goto(f"http://{front.address}/")
        expect(page.locator("#engine")).to_have_class("down")
        expect(page.locator("#token")).to_have_attribute("type", "password")
        token = token_of("alice")
        page.fill("#token", token)
        page.dispatch_event("#token", "change")
        with start_engine(agents=AGENTS, JWT_SECRET=SECRET, LISTEN=address):
            expect(page.locator("#engine")).to_contain_text("engine ready", timeout=20_000)
            ends(ask(page, "echo", "hello"), "done")
            page.click("#tab-call")
            assert token not in page.locator("#call code").inner_text()
            assert "hello" in kept(page)
            assert token not in kept(page)
        page.close()


def test_while_somebody_signs_in(chrome: Browser) -> None:
    """What is asked meanwhile is the new user's, and nothing of the one before goes along with it."""
    with both(AGENTS=AGENTS, JWT_SECRET=SECRET) as (_, front):
        page = chrome.new_page()
        page.goto(f"http://{front.address}/")
        sign_in(page, token_of("alice"), "alice")
        ends(ask(page, "repeater", "alice's secret"), "done")
        held: list[Route] = []
        page.route("**/v1/console", lambda route: held.append(route))  # noqa: PLW0108 - playwright looks at it
        page.fill("#input", "a draft of alice's")
        page.fill("#token", token_of("bob"))
        page.dispatch_event("#token", "change")
        expect(page.locator(".turn")).to_have_count(0)
        expect(page.locator("#input")).to_have_value("")
        turn = ask(page, "repeater", "bob asks")
        ends(turn, "done")
        heard = json.loads(bytes.fromhex(turn.locator(".answer").inner_text()))
        assert (heard["user"], heard["history"]) == ("bob", [])
        held[0].continue_()
        expect(page.locator("#user")).to_have_attribute("data-name", "bob")
        assert "alice" not in json.loads(page.evaluate("JSON.stringify({...localStorage})"))["runwire bob"]
        page.close()


def test_what_is_typed_when_a_question_comes(page: Page) -> None:
    """Nothing that is typed into the question box answers what an agent asks."""
    turn = ask(page, "triage", "I want my money back!")
    page.keyboard.type("and now? ")
    page.wait_for_selector(".asked")
    page.keyboard.type("and then? ")
    expect(page.locator("#input")).to_have_value("and now? and then? ")
    expect(turn.locator(".asked")).to_be_visible()
    turn.locator(".cancel").click()


def test_a_run_is_one_tabs(page: Page) -> None:
    """A tab that was opened from another one leaves it its runs, and can take them over when that is asked for."""
    sign_in(page, "judy")
    turn = ask(page, "waiter", "wait")
    expect(turn.locator(".answer")).to_have_text("waiting")
    with page.expect_popup() as popup:
        page.evaluate("window.open(location.href)")
    other = popup.value
    expect(other.locator("#elsewhere button")).to_have_text("Show here", timeout=10_000)
    expect(other.locator(".turn .state")).to_have_text("not followed any more")
    expect(turn.locator(".state")).to_have_text("running")
    other.locator("#elsewhere button").click()
    expect(other.locator(".turn .answer")).to_have_text("waiting")
    other.locator(".turn .cancel").click()
    ends(other.locator(".turn"), "cancelled")
    other.close()


def test_what_was_forgotten_stays_so(page: Page) -> None:
    """A run that ends afterwards does not bring its conversation back."""
    sign_in(page, "ken")
    turn = ask(page, "ticker", "tick")
    expect(turn.locator(".answer")).to_contain_text("1")
    page.get_by_role("button", name="Forget all of them").click()
    page.get_by_role("button", name="Really all?").click()
    afresh(page)
    ends(ask(page, "ticker", "again"), "done")
    expect(page.locator("#kept .open")).to_have_text(["again"])


def test_a_run_of_another_page_has_its_question(page: Page, chrome: Browser, front: Service) -> None:
    """What was asked there is shown here, too, and goes along as history."""
    with opened(chrome, front, "leo") as one:
        ask(one, "waiter", "asked there")
        sign_in(page, "leo")
        page.locator("#elsewhere button").click(timeout=10_000)
        expect(page.locator(".turn .question")).to_have_text("asked there")
        page.locator(".turn .cancel").click()
        ends(page.locator(".turn"), "cancelled")


def test_questions_that_no_browser_can_draw(page: Page) -> None:
    """One that is strange is drawn as well as can be, and nothing else stops."""
    ask(page, "oddly_asking", "Well?")
    expect(page.locator(".turn .asked label")).to_have_count(1)
    page.locator(".turn .asked input").fill("1")
    page.locator(".turn .asked button", has_text="Answer").click()
    ends(page.locator(".turn"), "done")
