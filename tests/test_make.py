"""The commands of the README."""

import os
import re
import signal
import socket
import subprocess
import time

from tests.support.services import PATIENCE, ROOT


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_make_run() -> None:
    """`make run` serves, says where within 3 seconds once all is set up, and stops both services on Ctrl-C."""
    engine, gateway = free_address(), free_address()
    env = {"RUNWIRE_ENGINE_LISTEN": engine, "RUNWIRE_GATEWAY_ENGINE": engine, "RUNWIRE_GATEWAY_LISTEN": gateway}
    started = time.monotonic()
    with subprocess.Popen(
        ["make", "run"], cwd=ROOT, env=os.environ | env, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as make:
        assert make.stdout
        said = next(line for line in make.stdout if "ready" in line)
        took = time.monotonic() - started
        assert f"http://{gateway}" in said
        os.killpg(make.pid, signal.SIGINT)  # as a terminal does
        assert make.wait(PATIENCE) in {0, 2, -signal.SIGINT}  # make itself may say that it was interrupted
    assert took < 3, took
    for address in (engine, gateway):
        host, port = address.split(":")
        with socket.socket() as probe:
            assert probe.connect_ex((host, int(port))) != 0


def test_make_help() -> None:
    """`make help` names every command of the README."""
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in re.findall(r"(?:`|^    )make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert f"make {command}" in told or command == "help"
