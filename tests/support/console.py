"""The console, as tests open it and use it."""

import re

from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.services import Service


class opened:  # noqa: N801 - reads as what it is
    """A page of the console, whose own errors fail the test."""

    def __init__(self, chrome: Browser, front: Service, user: str = "", **options: object) -> None:
        self.page = chrome.new_page(**options)  # type: ignore[arg-type]
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._console)
        self.page.goto(f"http://{front.address}/")
        expect(self.page.locator("#engine")).to_contain_text("engine ready")
        if user:
            sign_in(self.page, user)

    def _console(self, message: object) -> None:
        text = message.text  # type: ignore[attr-defined]
        if message.type == "error" and "WebSocket" not in text and "Failed to load" not in text:  # type: ignore[attr-defined]
            self.errors.append(text)

    def __enter__(self) -> Page:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.page.close()
        assert self.errors == [], self.errors


def sign_in(page: Page, token: str, name: str = "") -> None:
    page.fill("#token", token)
    page.dispatch_event("#token", "change")
    page.wait_for_selector(f'#user[data-name="{name or token}"]')


def ask(page: Page, agent: str, question: str, parameters: str = "") -> Locator:
    """Ask an agent something in the conversation that is shown, and return its turn."""
    page.select_option("#agent", agent)
    if parameters:
        if not page.locator("#more").evaluate("more => more.open"):
            page.locator("#more > summary").click()
        if not page.locator("#parameters").is_visible():
            page.locator("#along > button").click()
        page.fill("#parameters", parameters)
    page.fill("#input", question)
    page.click("#start")
    return page.locator(".turn").last


def afresh(page: Page) -> None:
    page.click("#afresh")


def ends(turn: Locator, state: str, patience: float = 15_000) -> None:
    expect(turn).to_have_attribute("data-state", state, timeout=patience)


def rows(page: Page) -> list[str]:
    """Return what is in sight of the timeline, line by line."""
    return [re.sub(r"\s+", " ", row).strip() for row in page.locator(".rows .row:visible .name").all_inner_texts()]
