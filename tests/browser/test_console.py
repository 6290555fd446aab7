"""The console, as a person uses it, in a real Chromium: what it must never lose. The rest is in tests/console."""

import json
import re
from collections.abc import Iterator

import jwt
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.console import afresh, ask, ends, opened, rows, sign_in
from tests.support.node import NODE, node
from tests.support.services import ROOT, Service, both

AGENTS = "tests.agents.asking,tests.agents.probes,tests.agents.rogues,tests.agents.dirt,tests.agents.talkers"
SECRET = "a secret of the tests, that is long enough"
INVOICE = "Open the invoice under Billing"


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[Service, Service]]:
    with both(AGENTS=AGENTS, MAX_RUNS_PER_USER="100", HEARTBEAT="1") as (back, front):
        yield back, front


@pytest.fixture
def page(chrome: Browser, services: tuple[Service, Service]) -> Iterator[Page]:
    with opened(chrome, services[1], viewport={"width": 1360, "height": 860}) as shown:
        yield shown


def test_its_parts() -> None:
    """What needs no page keeps what it promises: recordings, prose, bytes, conversations."""
    assert NODE.exists()
    node("--test", ROOT / "tests" / "console" / "parts.mjs")


def test_a_run_from_question_to_answer(page: Page) -> None:
    """A person picks an agent, asks, and watches the run to its answer; its timeline says what happened."""
    turn = ask(page, "triage", "My invoice shows a wrong amount!", '{"pace": 0}')
    ends(turn, "done")
    expect(turn.locator(".answer")).to_contain_text(INVOICE)
    expect(turn.locator(".steps")).to_contain_text("asked resolver")
    shown = rows(page)
    assert [row.lstrip("▾▸ ") for row in shown[:3]] == ["● triage", "■ search", "■ classify"]
    page.locator(".rows .row", has_text="search").first.click()
    expect(page.locator(".about h2")).to_contain_text("search")
    expect(page.locator(".about")).to_contain_text("An invoice shows a wrong amount")


def test_a_run_is_stopped(page: Page) -> None:
    """One that is stopped says so; it is slow enough to be stopped by hand."""
    turn = ask(page, "triage", "My invoice shows a wrong amount!")
    expect(turn.locator(".answer")).to_contain_text("Open")
    turn.locator(".cancel").click()
    ends(turn, "cancelled")
    expect(turn.locator(".failure")).to_have_text("Cancelled by its user.")


def test_a_conversation_goes_on(page: Page) -> None:
    """What was asked and answered goes into the next run as its history, with the conversation's id."""
    first = ask(page, "witness", "first")
    ends(first, "done")
    expect(first.locator(".answer")).to_contain_text('"history": []')
    second = ask(page, "witness", "second")
    ends(second, "done")
    expect(second.locator(".answer")).to_contain_text('"history": ["user: first", "assistant: {')
    expect(page.locator("#kept li")).to_have_count(1)
    afresh(page)
    third = ask(page, "witness", "third")
    ends(third, "done")
    expect(third.locator(".answer")).to_contain_text('"history": []')
    expect(page.locator("#kept li")).to_have_count(2)
    page.locator("#kept .open", has_text="first").click()
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".turn .question").last).to_have_text("second")


def test_two_runs_never_mix(page: Page, chrome: Browser, services: tuple[Service, Service]) -> None:
    """Two runs at once on a page, and a third on another user's, each show their own and nothing else."""
    with opened(chrome, services[1], "bob") as other:
        ask(page, "ticker", "red")
        afresh(page)
        blue = ask(page, "ticker", "blue")
        green = ask(other, "echo", "green")
        ends(blue, "done")
        ends(green, "done")
        expect(green.locator(".answer")).to_have_text("green")
        ticks = "".join(str(tick) for tick in range(60))
        expect(blue.locator(".answer")).to_have_text(ticks)
        ids = [blue.locator(".id").inner_text(), green.locator(".id").inner_text()]
        page.locator("#kept .open", has_text="red").click()
        red = page.locator(".turn")
        ends(red, "done")
        expect(red.locator(".answer")).to_have_text(ticks)
        assert len({*ids, red.locator(".id").inner_text()}) == 3
        expect(other.locator("#kept li")).to_have_count(1)


def test_users_of_one_browser(page: Page) -> None:
    """Another user of this browser sees nothing of the first one, whose run goes on, and is joined later."""
    sign_in(page, "grace")
    turn = ask(page, "waiter", "wait")
    expect(turn.locator(".answer")).to_have_text("waiting")
    run_id = turn.locator(".id").inner_text()
    sign_in(page, "heidi")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#kept li")).to_have_count(0)
    ends(ask(page, "echo", "mine"), "done")
    sign_in(page, "grace")
    turn = page.locator(".turn")
    expect(turn.locator(".id")).to_have_text(run_id)
    expect(turn.locator(".answer")).to_have_text("waiting")
    expect(page.locator("#kept li")).to_have_count(1)
    turn.locator(".cancel").click()
    ends(turn, "cancelled")


def test_what_is_asked_behind_ones_back(page: Page) -> None:
    """A conversation that is not looked at says that it asks, and that it has news."""
    sign_in(page, "ivan")
    ask(page, "orders", "Where is it?")
    afresh(page)
    expect(page.locator("#kept .open").first).to_contain_text("asks you")
    page.locator("#kept .open").first.click()
    page.locator(".turn .asked button", has_text="Decline").click()
    afresh(page)
    expect(page.locator("#kept .open").first).to_contain_text("Where is it?")
    expect(page.locator("#kept .open").first).not_to_contain_text("asks you")


def test_again(page: Page) -> None:
    """The last question is asked again below it, as if it were not there; another, in a conversation of its own."""
    ends(ask(page, "witness", "one"), "done")
    ends(ask(page, "witness", "two"), "done")
    page.locator(".turn .again").last.click()
    again = page.locator(".turn").last
    ends(again, "done")
    expect(page.locator(".turn .question")).to_have_text(["one", "two", "two"])
    expect(page.locator(".turn .replaced:visible")).to_have_count(1)
    said = json.loads(again.locator(".answer").inner_text())["history"]
    assert [line[:9] for line in said] == ["user: one", "assistant"]
    page.locator(".turn .edit").first.click()
    expect(page.locator("#input")).to_have_value("one")
    expect(page.locator("#editing")).to_be_visible()
    expect(page.locator(".turn")).to_have_count(3)
    page.fill("#input", "three")
    page.keyboard.press("Enter")
    expect(page.locator(".turn .question")).to_have_text(["three"])
    ends(page.locator(".turn"), "done")
    expect(page.locator("#kept li")).to_have_count(2)
    page.locator("#kept .open").last.click()
    expect(page.locator(".turn")).to_have_count(3)


def test_nothing_is_forgotten_by_accident(page: Page) -> None:
    """What cannot be undone is asked for twice."""
    for word in ("one", "two"):
        afresh(page)
        ends(ask(page, "echo", word), "done")
    remove = page.locator("#kept .remove").first
    remove.click()
    expect(page.locator("#kept li")).to_have_count(2)
    expect(remove).to_have_text("Forget?")
    remove.click()
    expect(page.locator("#kept .open")).to_have_text(["one"])
    page.get_by_role("button", name="Forget all of them").click()
    page.get_by_role("button", name="Really all?").click()
    expect(page.locator("#kept li")).to_have_count(0)


def test_the_page_is_loaded_again(page: Page) -> None:
    """A run goes on in the page that is loaded again, from its beginning to its end; what came meanwhile is said."""
    turn = ask(page, "ticker", "tick")
    expect(turn.locator(".answer")).to_contain_text("5")
    run_id = turn.locator(".id").inner_text()
    page.reload()
    turn = page.locator(".turn")
    expect(turn.locator(".id")).to_have_text(run_id)
    expect(turn.locator(".question")).to_have_text("tick")
    ends(turn, "done")
    expect(turn.locator(".answer")).to_have_text("".join(str(tick) for tick in range(60)))
    page.reload()
    expect(page.locator(".turn .answer")).to_have_text("".join(str(tick) for tick in range(60)))


def test_the_connection_is_cut(page: Page) -> None:
    """A button cuts the connection: the page says where it went on, shows every event once, and each frame."""
    turn = ask(page, "ticker", "tick")
    page.get_by_role("tab", name="Network").click()
    expect(turn.locator(".answer")).to_contain_text("5")
    page.locator("#network .cut").click()
    expect(turn.locator(".state")).to_have_text(re.compile(r"continued at \d+"))
    ends(turn, "done")
    expect(turn.locator(".answer")).to_have_text("".join(str(tick) for tick in range(60)))
    frames = page.locator("#network .frames")
    expect(frames).to_contain_text("→ run")
    expect(frames).to_contain_text("cut by you")
    expect(frames).to_contain_text("→ resume")
    expect(frames).to_contain_text(re.compile(r"← event"))


def test_a_failure_is_unmistakable(page: Page) -> None:
    """A run that fails says why; what failed is one click away, and chosen."""
    turn = ask(page, "rogue", "fail")
    ends(turn, "failed")
    expect(turn.locator(".failure")).to_have_text("The shop is closed.")
    turn.locator(".look").click()
    expect(page.locator(".about")).to_contain_text("The shop is closed.")
    turn = ask(page, "rogue", "fail_for_now")
    expect(turn.locator(".again")).to_have_text("Try again")


def test_money_back(page: Page) -> None:
    """The console offers what a person has to approve of; the tool and its arguments are shown, with two buttons."""
    page.get_by_role("button", name="I want my money back!").click()
    form = page.locator(".turn .asked")
    expect(form.locator("dt")).to_have_text("pay_back")
    expect(form.locator("dd")).to_have_text(["amount: 40", "currency: EUR", "invoice: 2026-1042"])
    page.keyboard.press("Enter")  # once too often
    expect(form).to_be_visible()
    form.locator("button", has_text="Approve").click()
    turn = page.locator(".turn")
    ends(turn, "done")
    expect(turn.locator(".answer")).to_contain_text("40.00 EUR are on their way back")
    expect(turn.locator(".settled")).to_contain_text(re.compile(r"Accepted by anonymous, \d"))


def test_parameters(page: Page) -> None:
    """They go along with the question; what is no JSON object is refused with a sentence, and no run begins."""
    page.select_option("#agent", "echo")
    page.locator("#more > summary").click()
    for wrong in ('{"times": 3', "[3]", "3", "null"):
        page.fill("#parameters", wrong)
        expect(page.get_by_role("alert")).to_contain_text("Parameters have to be a JSON object")
        page.fill("#input", "ho")
        page.click("#start")
        expect(page.locator("#parameters")).to_be_focused()
        expect(page.locator(".turn")).to_have_count(0)
    page.fill("#parameters", '{"times": 3}')
    page.click("#start")
    turn = page.locator(".turn")
    ends(turn, "done")
    expect(turn.locator(".answer")).to_have_text("hohoho")


def test_nothing_comes_from_elsewhere(chrome: Browser, services: tuple[Service, Service]) -> None:
    """The page loads nothing from another place, and its policy forbids what is inline."""
    front = services[1]
    page = chrome.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    answer = page.goto(f"http://{front.address}/")
    assert answer
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    expect(page.locator("#engine")).to_contain_text("engine ready")
    assert all(url.startswith(f"http://{front.address}/") for url in asked)
    page.close()


def test_no_token_is_kept(chrome: Browser) -> None:
    """Where there are keys a token is asked for, goes to the engine, and stays on the page: no storage has it."""
    with both(AGENTS=AGENTS, JWT_SECRET=SECRET) as (_, front):
        page = chrome.new_page()
        page.goto(f"http://{front.address}/")
        expect(page.locator("#engine")).to_have_text("You are not signed in.")
        expect(page.locator("#token")).to_have_attribute("type", "password")
        page.fill("#token", token_of("alice"))
        page.dispatch_event("#token", "change")
        expect(page.locator("#engine")).to_contain_text("engine ready")
        turn = ask(page, "echo", "hello")
        ends(turn, "done")
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
        assert "hello" in kept
        assert token_of("alice") not in kept
        page.get_by_role("tab", name="Call it yourself").click()
        expect(page.locator("#call code")).to_contain_text("YOUR_TOKEN")
        page.get_by_role("tab", name="Network").click()
        page.locator("#network .frames button").first.click()
        expect(page.locator("#network .raw")).to_contain_text('"accessToken": "…"')
        page.close()


def token_of(user: str) -> str:
    return jwt.encode({"sub": user, "exp": 4_000_000_000}, SECRET, "HS256")
