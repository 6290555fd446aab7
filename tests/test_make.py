"""The commands of the README."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.support.clients import caller, said
from tests.support.services import BIN, ROOT, Service, free_address
from tests.support.times import PATIENCE


async def test_make_run() -> None:
    """`make run` serves, says where within 3 seconds once all is set up, and lets runs finish on Ctrl-C."""
    engine, gateway = free_address(), free_address()
    env = {"RUNWIRE_ENGINE_LISTEN": engine, "RUNWIRE_GATEWAY_ENGINE": engine, "RUNWIRE_GATEWAY_LISTEN": gateway}
    started = time.monotonic()
    with subprocess.Popen(
        ["make", "run"], cwd=ROOT, env=os.environ | env, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as make:
        assert make.stdout
        said_ready = next(line for line in make.stdout if "ready" in line)
        took = time.monotonic() - started
        assert f"http://{gateway}" in said_ready
        async with caller(engine) as alice:
            call = alice.call("triage", "Where is my parcel?", parameters={"pace": 0.1})
            await said(call)
            os.killpg(make.pid, signal.SIGINT)  # as a terminal does
            rest = [event async for response in call for event in response.events]
            assert rest[-1].agent_completed.output
        assert await asyncio.to_thread(make.wait, PATIENCE) in {0, 2, -signal.SIGINT}  # make may say that it was told
    assert took < 3, took
    for address in (engine, gateway):
        host, port = address.split(":")
        with socket.socket() as probe:
            assert probe.connect_ex((host, int(port))) != 0


def test_make_run_twice(engine: Service) -> None:
    """A second `make run` on the same ports says what is wrong, and not that it is ready."""
    taken = {"RUNWIRE_ENGINE_LISTEN": engine.address, "RUNWIRE_GATEWAY_ENGINE": engine.address}
    done = subprocess.run(
        ["make", "run"],
        cwd=ROOT,
        env=os.environ | taken | {"RUNWIRE_GATEWAY_LISTEN": free_address()},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert f"cannot listen on {engine.address}" in done.stderr
    assert "ready" not in done.stdout


def test_make_help() -> None:
    """`make help` names every command of the README."""
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in re.findall(r"(?:`|^    )make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert f"make {command}" in told or command == "help"


def test_dev_without_what_it_needs(tmp_path: Path) -> None:
    """It says in one line what to install."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-S", "-m", "runwire.dev", "dev", "my_app:weather"],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "runwire dev: pip install 'runwire[engine,gateway]'\n")


def test_dev_in_any_folder(tmp_path: Path) -> None:
    """What is in the folder where the command is given is found, and it alone; a wrong name is told."""
    (tmp_path / "my_app.py").write_text("async def weather(context, input):\n    return 'fine'\n")
    env = os.environ | {"RUNWIRE_ENGINE_LISTEN": free_address(), "RUNWIRE_GATEWAY_LISTEN": free_address()}
    command: list[str | Path] = [BIN / "runwire", "dev", "my_app:weather"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout
        assert running.stderr
        assert env["RUNWIRE_GATEWAY_LISTEN"] in next(line for line in running.stdout if "ready" in line)
        running.send_signal(signal.SIGTERM)
        said = running.stderr.read()
    assert running.returncode == 0
    assert '"agents": ["weather"]' in said
    missing = subprocess.run(
        [BIN / "runwire", "dev", "my_app:wether"],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert missing.returncode == 2
    assert "did you mean 'weather'?" in missing.stderr


async def test_dev_lets_runs_finish(tmp_path: Path) -> None:
    """Told to stop, it stops both services once: they drain."""
    slow = "import asyncio\nasync def slow(context, input):\n    await context.say('a')\n    await asyncio.sleep(1.5)\n"
    (tmp_path / "my_app.py").write_text(slow)
    env = os.environ | {"RUNWIRE_ENGINE_LISTEN": free_address(), "RUNWIRE_GATEWAY_LISTEN": free_address()}
    command: list[str | Path] = [BIN / "runwire", "dev", "my_app:slow"]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert any("ready" in line for line in running.stdout)
        async with caller(env["RUNWIRE_ENGINE_LISTEN"]) as alice:
            call = alice.call("slow")
            await said(call)
            running.send_signal(signal.SIGTERM)
            rest = [event async for response in call for event in response.events]
            assert rest[-1].HasField("agent_completed")
        assert await asyncio.to_thread(running.wait, PATIENCE) == 0
