"""The README's five minutes, from an empty folder on, as a newcomer does it. See `make compat`."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.support.model_server import model_server
from tests.support.services import BIN, ROOT, free_address
from tests.support.times import PATIENCE
from tests.support.wheel import built

README = (ROOT / "README.md").read_text().partition("## Five minutes")[2].partition("\n## ")[0]
pytestmark = [pytest.mark.measures, pytest.mark.frameworks]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README has one install and write; Runwire is this checkout's wheel."""
    place = tmp_path_factory.mktemp("five")
    setup, app, command = re.findall(r"```(?:sh|python)\n(.*?)```", README, re.DOTALL)
    wheel = built(place / "dist")
    subprocess.run(
        ["sh", "-e", "-c", setup.replace("python3 ", f"{BIN}/python3 ").replace("'runwire[", f"'{wheel}[")],
        check=True, capture_output=True, cwd=place,
    )  # fmt: skip
    (place / "my_app.py").write_text(app)
    (place / "command").write_text(command.replace("…", "a-key"))
    return place


def test_five_minutes(folder: Path, chrome: Browser) -> None:
    """What the one command starts answers in the console."""
    engine, gateway = free_address(), free_address()
    with model_server() as server:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("RUNWIRE", "PYTHON"))} | {
            "RUNWIRE_ENGINE_LISTEN": engine, "RUNWIRE_GATEWAY_LISTEN": gateway, "OPENAI_BASE_URL": server.url,
        }  # fmt: skip
        with subprocess.Popen(
            ["sh", "-c", f"exec env {(folder / 'command').read_text()}"],
            cwd=folder, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True,
        ) as command:  # fmt: skip
            assert command.stdout
            try:
                assert gateway in next(line for line in command.stdout if "ready" in line)
                page = chrome.new_page()
                page.goto(f"http://{gateway}/")
                expect(page.locator("#agent")).to_have_value("weather")
                page.fill("#input", "one tool")
                page.press("#input", "Control+Enter")
                expect(page.locator(".run .answer")).to_contain_text(
                    "7 degrees in Oslo it is.", timeout=PATIENCE * 1000
                )
                page.close()
            finally:
                os.killpg(command.pid, signal.SIGINT)
                command.wait(PATIENCE)
