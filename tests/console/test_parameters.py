"""What is sent along: a form where the agent has declared it."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.console import ends, opened
from tests.support.services import Service, both

pytestmark = pytest.mark.console


@pytest.fixture(scope="module")
def front() -> Iterator[Service]:
    with both(AGENTS="tests.agents.declaring,tests.agents.probes:Echo") as (_, service):
        yield service


@pytest.fixture
def page(chrome: Browser, front: Service) -> Iterator[Page]:
    with opened(chrome, front, viewport={"width": 1360, "height": 860}) as shown:
        shown.select_option("#agent", "booking")
        shown.locator("#more > summary").click()
        yield shown


def sent(page: Page) -> object:
    page.fill("#input", "two seats")
    page.keyboard.press("Enter")
    turn = page.locator(".turn").last
    ends(turn, "done")
    return json.loads(turn.locator(".answer").inner_text())


def test_a_form(page: Page) -> None:
    """Fields are as they are declared, with what is proposed; what is nested is JSON; what is left empty isn't sent."""
    form = page.locator("#along .fields")
    expect(form.locator("label")).to_have_count(4)
    expect(page.locator("#along [name=seats]")).to_have_value("2")
    expect(page.locator("#along [name=quiet]")).to_be_checked()
    assert sent(page) == {"seats": 2, "quiet": True}
    page.locator("#along [name=seats]").fill("3")
    page.locator("#along [name=row]").select_option("back")
    page.locator("#along [name=names]").fill('["a", "b"]')
    page.locator("#along [name=quiet]").uncheck()
    assert sent(page) == {"seats": 3, "row": "back", "names": ["a", "b"], "quiet": False}


def test_what_is_wrong(page: Page) -> None:
    """What cannot be sent is said, at the field, and no run begins; what only the engine knows, it says."""
    page.locator("#along [name=seats]").fill("10")
    page.fill("#input", "ten seats")
    page.keyboard.press("Enter")
    expect(page.locator("#wrong")).to_contain_text("seats: ")
    expect(page.locator("#along [name=seats]")).to_be_focused()
    expect(page.locator(".turn")).to_have_count(0)
    page.get_by_role("button", name="As JSON").click()
    expect(page.locator("#wrong")).to_contain_text("seats: ")
    page.locator("#along [name=seats]").fill("9")
    page.get_by_role("button", name="As JSON").click()
    expect(page.locator("#parameters")).to_have_value('{"seats":9,"quiet":true}')
    page.fill("#parameters", '{"seats": 10}')
    page.fill("#input", "ten seats")
    page.keyboard.press("Enter")
    expect(page.locator(".turn .failure")).to_contain_text("parameters.seats: must be at most 9")


def test_a_form_goes_with_its_agent(page: Page) -> None:
    """Another agent has an editor, and a conversation has what was sent in it."""
    page.locator("#along [name=seats]").fill("4")
    assert sent(page) == {"seats": 4, "quiet": True}
    page.select_option("#agent", "echo")
    expect(page.locator("#parameters")).to_have_value("")
    page.locator("#kept .open").click()
    expect(page.locator("#agent")).to_have_value("booking")
    expect(page.locator("#along [name=seats]")).to_have_value("4")
