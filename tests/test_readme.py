"""What the README shows is what runs."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from runwire.v1.engine_pb2 import RunRequest
from runwire.v1.events_pb2 import Event

from tests.support.clients import caller, kind, terminal
from tests.support.node import NODE
from tests.support.services import ROOT, Service
from tests.support.services import engine as start_engine
from tests.support.times import PATIENCE

README = (ROOT / "README.md").read_text()
EXAMPLES = ROOT / "examples"


SHOWN = README + "".join((ROOT / "docs" / f"{page}.md").read_text() for page in ("frameworks", "clients"))
FILES = [path for path in sorted(EXAMPLES.iterdir()) if path.is_file()]


@pytest.mark.parametrize("example", FILES, ids=lambda path: path.name)
def test_the_readme_shows_the_examples(example: Path) -> None:
    """Each example stands in the README, or the pages about frameworks and clients, to the letter, and on its map."""
    if example.suffix != ".md":
        assert example.read_text() in SHOWN
        assert f"]({example.name})" in (EXAMPLES / "README.md").read_text()


def at(example: str, engine: Service, gateway: Service) -> str:
    """Return an example with the addresses of the tests' services."""
    text = (EXAMPLES / example).read_text()
    return text.replace("127.0.0.1:50051", engine.address).replace("127.0.0.1:8080", gateway.address)


def run(*command: str | Path, **env: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=os.environ | env
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_calling_from_python(engine: Service, gateway: Service) -> None:
    """The Python example prints the run."""
    assert "triage agent_completed" in run(sys.executable, "-c", at("call.py", engine, gateway))


def test_calling_from_a_browser(engine: Service, gateway: Service) -> None:
    """The browser's example prints the run, in a JavaScript engine with the browser's own WebSocket."""
    out = run(NODE, "--input-type=module", "--eval", at("call.js", engine, gateway))
    assert "agentCompleted" in out
    assert "closed 1000" in out


def test_calling_with_grpcurl(engine: Service, gateway: Service, grpcurl: Path) -> None:
    """The grpcurl example prints the run."""
    out = run("/bin/sh", "-c", at("call.sh", engine, gateway), PATH=f"{grpcurl.parent}:{os.environ['PATH']}")
    assert "agent_completed" in out


def test_resuming_with_grpcurl(engine: Service, gateway: Service, grpcurl: Path) -> None:
    """The example of a resumable run prints the run, and again what came after the third event."""
    out = run("/bin/sh", "-c", at("resume.sh", engine, gateway), PATH=f"{grpcurl.parent}:{os.environ['PATH']}")
    assert [out.count(f'"seq": {number},') for number in (1, 3, 4, 5)] == [1, 1, 2, 2]


async def test_answering_with_grpcurl(engine: Service, gateway: Service, grpcurl: Path) -> None:
    """The example lists the runs, and answers what one of them asks."""
    async with caller(engine.address, "developer") as who:
        call = who.stub.Run(RunRequest(agent="triage", input="I want my money back"))
        events: list[Event] = []
        async for response in call:
            events += response.events
            for event in response.events:
                if kind(event) == "input_requested":
                    asked = {"RUN": response.run_id, "QUESTION": event.input_requested.request_id}
                    path = f"{grpcurl.parent}:{os.environ['PATH']}"
                    out = await asyncio.to_thread(
                        run, "/bin/sh", "-c", at("answer.sh", engine, gateway), PATH=path, **asked
                    )
                    assert out.count(asked["RUN"]) == 1
                    assert out.count(asked["QUESTION"]) == 1
        assert "on their way back" in terminal(events).agent_completed.output


async def test_writing_an_agent() -> None:
    """The agent of the README runs."""
    with start_engine(agents="examples.weather") as engine:
        async with caller(engine.address) as alice:
            assert terminal(await alice.run("weather", "Paris")).agent_completed.output == "15 degrees in Paris"


def test_the_tables_of_settings() -> None:
    """Each setting is in the README, with its default and what `--help` says of it."""
    before = README
    subprocess.run([sys.executable, ROOT / "scripts" / "settings_table.py"], check=True)
    assert (ROOT / "README.md").read_text() == before
