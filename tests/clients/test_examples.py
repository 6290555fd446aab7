"""What examples/ has for callers, run as its README says."""

import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.node import NODE
from tests.support.services import BIN, MISSING, ROOT, Service, engine, free_address
from tests.support.times import PATIENCE

pytestmark = [pytest.mark.packages, pytest.mark.timeout(400)]
EXAMPLES = ROOT / "examples"
SERVICE = ROOT / "build" / "service" / "bin"
"""An environment that has nothing of ours but the client, FastAPI, and protoc."""


@pytest.fixture(scope="module")
def back() -> Iterator[Service]:
    with engine(DEMO_AGENTS="true") as service:
        assert service.address
        yield service


def done(*command: str | Path, folder: Path = ROOT, **env: str) -> str:
    ended = subprocess.run(command, cwd=folder, env=os.environ | env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return ended.stdout


def test_a_go_client_from_the_protos(back: Service, tmp_path: Path) -> None:
    """The contract generates a Go client; 40 lines of Go run an agent with it."""
    if not _has("go"):
        pytest.skip("Go" + MISSING)
    for file in ("main.go", "go.mod", "go.sum"):
        (tmp_path / file).write_bytes((EXAMPLES / "go" / file).read_bytes())
    done(BIN / "buf", "generate", "--template", "protos/buf.gen.go.yaml", "--output", tmp_path)
    said = done("go", "run", ".", back.address, "My invoice is wrong", folder=tmp_path, GOFLAGS="-mod=mod").splitlines()
    assert said[0] == "1 triage *runwirev1.Event_AgentStarted"
    assert said[-1].endswith("triage *runwirev1.Event_AgentCompleted")


def test_the_contract_for_typescript_and_java(tmp_path: Path) -> None:
    """The templates generate the contract in both."""
    path = f"{ROOT / 'build' / 'node' / 'bin'}:{NODE.parent}:{os.environ['PATH']}"
    typescript = tmp_path / "typescript"
    done(BIN / "buf", "generate", "--template", "protos/buf.gen.typescript.yaml", "--output", typescript, PATH=path)
    assert "EngineService" in (typescript / "gen/runwire/v1/engine_pb.ts").read_text()
    tool = tmp_path / "protoc-gen-grpc-java"
    tool.write_text("#!/bin/sh\ncat >/dev/null\n")  # Maven has it: here it generates nothing
    tool.chmod(0o755)
    java = tmp_path / "java"
    path = f"{tmp_path}:{SERVICE}:{path}"
    done(BIN / "buf", "generate", "--template", "protos/buf.gen.java.yaml", "--output", java, PATH=path)
    assert (java / "gen/example/runwire/v1/RunRequest.java").exists()


def test_a_web_service(back: Service) -> None:
    """A FastAPI service asks agents with what `pip install runwire` alone brings, whole answers and words."""
    address = free_address()
    host, _, port = address.rpartition(":")
    command: list[str | Path] = [SERVICE / "uvicorn", "service:app", "--host", host, "--port", port]
    env = os.environ | {"ENGINES": back.address}
    with subprocess.Popen(command, cwd=EXAMPLES, env=env, stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr
        try:
            while "Uvicorn running" not in (line := service.stderr.readline()):
                assert line, "it ended"
            question = "question=My%20invoice%20is%20wrong"
            assert '"triage"' in _get(f"http://{address}/agents")
            assert "Open the invoice under Billing" in _get(f"http://{address}/agents/triage/answer?{question}")
            assert _get(f"http://{address}/agents/triage/words?{question}").startswith("Open the invoice")
            for path in ("answer", "words"):
                assert _refused(f"http://{address}/agents/nobody/{path}?{question}") == 400
            money = "question=I%20want%20my%20money%20back"
            assert _refused(f"http://{address}/agents/triage/answer?{money}") == 409
            assert "pay_back" in _get(f"http://{address}/agents/triage/words?{money}")
        finally:
            service.terminate()


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def _refused(url: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(url, timeout=PATIENCE)
    error.value.close()
    return error.value.code


def _has(name: str) -> bool:
    return any((Path(folder) / name).exists() for folder in os.environ["PATH"].split(":"))
