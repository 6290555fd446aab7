"""Takes the pictures of the console: conversations and what happened in them, six users, and one that moves."""

import sys
from pathlib import Path

from playwright.sync_api import Browser, Page

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.moving_picture import moving
from tests.support.browser import browser, chromium
from tests.support.console import ask, ends
from tests.support.services import both

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
WIDE = {"width": 1360, "height": 800}
SMALL = {"width": 1060, "height": 640}
NARROW = {"width": 390, "height": 840}
INVOICE = "My invoice shows a wrong amount, and I need it corrected today!"
AGENTS = "tests.agents.asking,tests.agents.rogues,tests.agents.probes,tests.agents.shown"
FRAME = 150
"""Milliseconds between two pictures of the one that moves."""


class Console:
    """Pages of the console, as they are shown in pictures."""

    def __init__(self, chrome: Browser, address: str) -> None:
        self._chrome = chrome
        self._address = address

    def page(self, size: dict[str, int] = WIDE, scheme: str = "light", view: str = "") -> Page:
        """Open one."""
        page = self._chrome.new_page(viewport=size, color_scheme=scheme, device_scale_factor=1)  # type: ignore[arg-type]
        page.goto(f"http://{self._address}/{view}")
        page.wait_for_selector("#engine.up")
        return page

    def take(self, page: Page, name: str) -> None:
        """Take a picture of one, and close it."""
        page.screenshot(path=PICTURES / f"{name}.png")
        page.close()

    def conversation(self, name: str, scheme: str, size: dict[str, int]) -> None:
        """Take a run that has answered, one that failed, and what happened in the first."""
        page = self.page(size, scheme)
        ends(ask(page, "rogue", "segfault"), "failed")
        turn = ask(page, "clerk", INVOICE)
        ends(turn, "done", 30_000)
        turn.locator(".look").click()
        page.locator(".rows .row", has_text="search").first.click()
        page.locator("#turns").evaluate("turns => turns.scrollTop = turns.scrollHeight")
        if size == NARROW:
            page.evaluate("scrollTo(0, 0)")
        self.take(page, name)

    def network(self) -> None:
        """Take a run whose connection was cut, and that goes on."""
        page = self.page()
        turn = ask(page, "ticker", "How far can you count?")
        page.click("#tab-network")
        turn.locator(".answer", has_text="12").wait_for()
        page.click("#network .cut")
        turn.locator(".state", has_text="continued").wait_for()
        turn.locator(".answer", has_text="34").wait_for()
        page.locator("#network .received button").last.click()
        self.take(page, "reconnecting")

    def asking(self) -> None:
        """Take a run that asks for approval, after one whose question was answered."""
        page = self.page()
        turn = ask(page, "orders", "Where is it?")
        page.get_by_label("order", exact=True).fill("17")
        page.get_by_label("many").fill("2")
        page.keyboard.press("Enter")
        ends(turn, "done")
        turn = ask(page, "triage", "I want my money back!")
        turn.locator(".asked dt").wait_for()
        self.take(page, "asking")

    def side_by_side(self) -> None:
        """Take six users, of whom one computes for two seconds without awaiting."""
        page = self.page(view="#side")
        page.locator(".scenes button").first.click()
        page.wait_for_timeout(6500)
        self.take(page, "side-by-side")

    def moving(self) -> None:
        """Take a run from its question to its answer, as it happens."""
        page = self.page(SMALL)
        page.select_option("#agent", "clerk")
        page.fill("#input", INVOICE)
        frames = [page.screenshot()]
        page.click("#start")
        turn = page.locator(".turn").last
        while turn.get_attribute("data-state") == "running" and len(frames) < 60:
            page.wait_for_timeout(FRAME)
            frames.append(page.screenshot())
        page.close()
        (PICTURES / "moving.png").write_bytes(moving(frames, FRAME, rest=2500))


def main() -> None:
    """Take them all."""
    executable = chromium()
    if executable is None:
        sys.exit("there is no Chromium on this machine")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with both(AGENTS=AGENTS, MAX_RUNS_PER_USER="50") as (_, gateway), browser(executable) as chrome:
        console = Console(chrome, gateway.address)
        console.conversation("light", "light", WIDE)
        console.conversation("dark", "dark", WIDE)
        console.conversation("narrow", "light", NARROW)
        console.network()
        console.asking()
        console.side_by_side()
        console.moving()


if __name__ == "__main__":
    main()
