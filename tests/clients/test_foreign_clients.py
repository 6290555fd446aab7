"""The same run, seen by clients that nobody here wrote."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.support.services import BIN, Service

REQUEST = {"agent": "triage", "input": "My invoice is wrong"}
METHOD = "runwire.v1.EngineService/Run"


def run(*command: str | Path, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(text: str) -> list[dict[str, Any]]:
    """Read JSON documents laid end to end."""
    decoder, at, found = json.JSONDecoder(), 0, []
    while at < len(text.rstrip()):
        document, at = decoder.raw_decode(text, at + len(text[at:]) - len(text[at:].lstrip()))
        found.append(document)
    return found


def check(responses: list[dict[str, Any]]) -> None:
    events = [event for response in responses for event in response.get("events", [])]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {"agentStarted", "agent_started"} & events[0].keys()
    assert {"agentCompleted", "agent_completed"} & events[-1].keys()


def test_grpcurl(engine: Service, grpcurl: Path) -> None:
    """`grpcurl` finds the service by reflection, and shows the run."""
    out = run(grpcurl, "-plaintext", "-d", json.dumps(REQUEST), engine.address, METHOD)
    check(documents(out))


def test_grpcurl_lists_and_describes(engine: Service, grpcurl: Path) -> None:
    """`grpcurl` shows what can be called."""
    assert "runwire.v1.EngineService" in run(grpcurl, "-plaintext", engine.address, "list")
    assert "rpc Resume" in run(grpcurl, "-plaintext", engine.address, "describe", "runwire.v1.EngineService")


def test_buf_curl(engine: Service, buf: Path) -> None:
    """`buf curl` finds the service by reflection, and shows the run."""
    out = run(
        buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--emit-defaults=false", "--data",
        json.dumps(REQUEST), f"http://{engine.address}/{METHOD}",
    )  # fmt: skip
    check(documents(out))


def test_websockets_command_line(gateway: Service) -> None:
    """The command-line client of websockets, typed at by a person, shows the run."""
    client = subprocess.Popen(
        [BIN / "websockets", f"ws://{gateway.address}/v1/stream"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert client.stdin
    assert client.stdout
    with client:
        client.stdin.write(json.dumps({"run": REQUEST}) + "\n")
        client.stdin.flush()
        started = time.monotonic()
        lines: list[str] = []
        while time.monotonic() < started + 20:
            lines.append(line := client.stdout.readline())
            if "1000 (OK)" in line:
                break
        client.kill()
    frames = [json.loads(line[line.index("{") :]) for line in lines if "runId" in line]
    check(frames)
