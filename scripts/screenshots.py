"""Takes the pictures of the console: light, dark, narrow."""

import sys
from pathlib import Path

from playwright.sync_api import Browser, Page

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.browser import browser, chromium
from tests.support.services import both

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
WIDE = {"width": 1360, "height": 860}
NARROW = {"width": 380, "height": 800}


def ask(page: Page, agent: str, question: str) -> None:
    """Start a run."""
    page.select_option("#agent", agent)
    page.fill("#input", question)
    page.click("#start")


def take(chrome: Browser, address: str, name: str, scheme: str, size: dict[str, int]) -> None:
    """Take one picture: a run that has answered, one that fell back, and one that failed."""
    page = chrome.new_page(viewport=size, color_scheme=scheme, device_scale_factor=1)
    page.goto(f"http://{address}/")
    page.wait_for_selector("#engine.up")
    ask(page, "rogue", "segfault")
    ask(page, "triage", "How do I feed the office plants?")
    ask(page, "triage", "My invoice shows a wrong amount, and I need it corrected today!")
    page.wait_for_selector(".run.failed")
    page.locator(".run.completed").nth(1).wait_for()
    page.locator("details summary", has_text="result").first.click()
    page.screenshot(path=PICTURES / f"{name}.png", full_page=name == "narrow")
    page.close()


def take_reconnecting(chrome: Browser, address: str) -> None:
    """Take a picture of a run that goes on after its connection was cut, beside one that is about to."""
    page = chrome.new_page(viewport=WIDE, color_scheme="light", device_scale_factor=1)
    page.goto(f"http://{address}/")
    page.wait_for_selector("#engine.up")
    ask(page, "ticker", "How far can you count?")
    run = page.locator(".run")
    run.locator(".answer", has_text="15").wait_for()
    run.locator(".cut").click()
    run.locator(".state", has_text="continued").wait_for()
    ask(page, "ticker", "And you?")
    second = page.locator(".run").first
    second.locator(".answer", has_text="9").wait_for()
    second.locator(".cut").click()
    second.locator(".state", has_text="reconnecting").wait_for()
    page.screenshot(path=PICTURES / "reconnecting.png")
    page.close()


def take_asking(chrome: Browser, address: str) -> None:
    """Take a picture of runs that ask: for an answer, for approval, and one that was answered."""
    page = chrome.new_page(viewport=WIDE, color_scheme="light", device_scale_factor=1)
    page.goto(f"http://{address}/")
    page.wait_for_selector("#engine.up")
    ask(page, "orders", "Where is it?")
    page.get_by_label("order", exact=True).fill("17")
    page.get_by_label("many").fill("2")
    page.keyboard.press("Enter")
    page.locator(".run.completed").wait_for()
    ask(page, "orders", "And the other one?")
    page.locator(".run .asked").wait_for()
    page.select_option("#agent", "triage")
    page.locator("#example button").click()
    page.locator(".run .asked dt").wait_for()
    page.screenshot(path=PICTURES / "asking.png")
    page.close()


def main() -> None:
    """Take them all."""
    executable = chromium()
    if executable is None:
        sys.exit("there is no Chromium on this machine")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with (
        both(AGENTS="tests.agents.asking,tests.agents.rogues,tests.agents.probes", MAX_RUNS_PER_USER="50") as (
            _,
            gateway,
        ),
        browser(executable) as chrome,
    ):
        take(chrome, gateway.address, "light", "light", WIDE)
        take(chrome, gateway.address, "dark", "dark", WIDE)
        take(chrome, gateway.address, "narrow", "light", NARROW)
        take_reconnecting(chrome, gateway.address)
        take_asking(chrome, gateway.address)


if __name__ == "__main__":
    main()
