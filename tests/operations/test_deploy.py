"""What deploy/ holds, checked as far as that can be without the machines that it is for."""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from edge_gateway.settings import Settings as GatewaySettings
from engine_service.settings import Settings as EngineSettings
from tests.support.clients import JSON, Caller, caller, frames, kind, opening, socket
from tests.support.servers import Prometheus, found, prometheus
from tests.support.services import BIN, MISSING, ROOT, Service, free_address, until
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.times import PATIENCE

pytestmark = pytest.mark.operations

DEPLOY = ROOT / "deploy"
BOTH = (EngineSettings, GatewaySettings)
KNOWN = {f"{settings.prefix}{field.upper()}" for settings in BOTH for field in settings.model_fields}
COMMANDS = {"engine": "engine-service", "gateway": "edge-gateway"}


def test_every_setting_is_one_of_ours() -> None:
    """Whatever file names a setting names one that there is."""
    files = [path for path in DEPLOY.rglob("*") if path.is_file()] + [ROOT / "docs" / "operations.md"]
    for path in files:
        named = set(re.findall(r"RUNWIRE_(?:ENGINE|GATEWAY)_[A-Z_]+[A-Z]", path.read_text()))
        assert named <= KNOWN, path


@pytest.mark.parametrize("name", ["engine", "gateway"])
def test_units(name: str, tmp_path: Path) -> None:
    """Systemd reads each unit without a word, and finds it exposed as little as a service of its kind can be."""
    if not shutil.which("systemd-analyze"):
        pytest.skip(f"systemd-analyze{MISSING}")
    unit = (DEPLOY / "systemd" / f"runwire-{name}.service").read_text()
    for other in COMMANDS:  # each names the other, and its command is where it is installed
        text = (DEPLOY / "systemd" / f"runwire-{other}.service").read_text().replace("/opt/runwire/.venv/bin", str(BIN))
        (tmp_path / f"runwire-{other}.service").write_text(text)
    path = tmp_path / f"runwire-{name}.service"
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    if (more := DEPLOY / "systemd" / f"runwire-{name}.service.d").exists():  # with it, too
        shutil.copytree(more, tmp_path / more.name)
        done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        shutil.rmtree(tmp_path / more.name)
    security: list[str | Path] = ["systemd-analyze", "security", "--offline=true", "--threshold=20", path]
    done = subprocess.run(security, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]
    # It is told to drain, and has the time for that.
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and line[0] != "#")
    grace = (EngineSettings if name == "engine" else GatewaySettings).model_fields["drain_grace"].default
    assert settings["KillSignal"] == "SIGTERM"
    assert int(settings["TimeoutStopSec"]) >= grace + 10


def test_environment_files(tmp_path: Path) -> None:
    """A service takes every line of its file: what stops it is what is not there on this machine."""
    for name, command in COMMANDS.items():
        lines = (DEPLOY / "systemd" / f"{name}.env").read_text().splitlines()
        env = dict(line.split("=", 1) for line in lines if line and line[0] != "#")
        env |= {"RUNWIRE_ENGINE_JWT_KEYS_URL": "http://127.0.0.1:1/jwks"} if name == "engine" else {}
        done = subprocess.run(
            [BIN / command, "--listen", "127.0.0.1:0" if name == "engine" else "192.0.2.1:1"],
            env={"PATH": os.environ["PATH"]} | env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        line = done.stderr.splitlines()[-1]
        assert "no JWKS can be fetched" in line or "cannot listen on 192.0.2.1" in line


def manifests() -> list[dict[str, Any]]:
    """Return what would be applied, as kubectl puts it together."""
    if not shutil.which("kubectl"):
        documents = (yaml.safe_load_all(path.read_text()) for path in (DEPLOY / "kubernetes").glob("*.yaml"))
        return [each for document in documents for each in document if each["kind"] != "Kustomization"]
    done = subprocess.run(["kubectl", "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def test_manifests() -> None:
    """Each is what Kubernetes' own schema of its kind says, and nothing besides."""
    folder = ROOT / "build" / "deploy"
    script = (
        "import json, sys, kubernetes_validate as kv\n"
        "for each in json.load(sys.stdin): kv.validate(each, kv.latest_version(), strict=True)"
    )
    env = os.environ | {"PYTHONPATH": str(folder), "PYTHONWARNINGS": "ignore"}
    said, command = json.dumps(manifests()), [sys.executable, "-c", script]
    done = subprocess.run(command, input=said, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {each["kind"] for each in manifests()} >= {
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
    }


def test_what_is_scraped_in_kubernetes() -> None:
    """Jobs have the names that alerts want, and are of pods that there are. Debian's promtool knows none of that."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "kubernetes.yml").read_text())
    pods = {each["metadata"]["labels"]["app"]: each for each in manifests() if each["kind"] == "Deployment"}
    assert {job["job_name"] for job in config["scrape_configs"]} == set(pods)
    for job in config["scrape_configs"]:
        [rule] = job["relabel_configs"]
        app, port = rule["regex"].split(";")
        [container] = pods[app]["spec"]["template"]["spec"]["containers"]
        assert (app, port in {each["name"] for each in container["ports"]}) == (job["job_name"], True)


def test_what_manifests_say_fits_together() -> None:
    """Probes ask where there is an answer, drains fit into the time that there is, and nobody is root."""
    by = {(each["kind"], each["metadata"]["name"]): each for each in manifests()}
    for name, settings in (("engine", EngineSettings), ("gateway", GatewaySettings)):
        pod = by["Deployment", name]["spec"]["template"]["spec"]
        [container] = pod["containers"]
        data = by["ConfigMap", name]["data"]
        port = int(settings.model_fields["operations_listen"].default.rpartition(":")[2])
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        assert ports["operations"] == port
        for probe in ("readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["path"] in {"/healthz", "/readyz"}
            assert container[probe]["httpGet"]["port"] == "operations"
        [_, waits] = container["lifecycle"]["preStop"]["exec"]["command"]
        grace = float(data[f"{settings.prefix}DRAIN_GRACE"])
        assert pod["terminationGracePeriodSeconds"] >= float(waits) + grace + 10
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert by["PodDisruptionBudget", name]["spec"]["maxUnavailable"] == 1
    metric = by["HorizontalPodAutoscaler", "engine"]["spec"]["metrics"][0]["pods"]
    assert float(metric["target"]["averageValue"]) < float(by["ConfigMap", "engine"]["data"]["RUNWIRE_ENGINE_MAX_RUNS"])
    assert by["Service", "engine"]["spec"]["clusterIP"] == "None"


def test_compose() -> None:
    """Every service is hardened, and reached from this machine alone."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert set(compose["services"]) == {"engine", "gateway", "valkey", "prometheus", "grafana"}
    for service in compose["services"].values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        for volume in service.get("volumes", ()):
            assert (DEPLOY / volume.split(":")[0]).exists()
        if build := service.get("build"):
            assert (ROOT / build["dockerfile"]).exists()
    subnet = compose["networks"]["inside"]["ipam"]["config"][0]["subnet"]
    for name in COMMANDS:
        variable = f"RUNWIRE_{name.upper()}_DEVELOPMENT_NETWORK"
        assert compose["services"][name]["environment"][variable] == subnet


@pytest.mark.parametrize("name", ["engine", "gateway"])
def test_images(name: str, tmp_path: Path) -> None:
    """What an image copies is there, what it installs can be, it is nobody's root, and its health check is true."""
    lines = (DEPLOY / "docker" / f"{name}.Dockerfile").read_text().replace("\\\n", "").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and line[0] != "#"]
    last = steps[max(place for place, step in enumerate(steps) if step[0] == "FROM") :]
    for what, words in steps[: -len(last)]:
        if what == "COPY":
            *sources, _ = words.split()
            assert all((ROOT / source).exists() for source in sources), words
    extras = re.search(r"'\.\[(.*?)\]'", " ".join(words for _, words in steps))
    assert extras
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    about = dict(last)
    assert about["USER"] == "10001"
    assert json.loads(about["ENTRYPOINT"]) == [COMMANDS[name]]
    assert about["STOPSIGNAL"] == "SIGTERM"
    command = json.loads(about["HEALTHCHECK"].partition("CMD")[2])
    with start_engine() as back:
        service = back if name == "engine" else None
        with start_gateway(back.address) as front:
            service = service or front
            port = {"engine": "9464", "gateway": "9465"}[name]
            script = command[2].replace(f"127.0.0.1:{port}", service.operations)
            assert subprocess.run([sys.executable, "-c", script], check=False, cwd=tmp_path).returncode == 0
    assert subprocess.run([sys.executable, "-c", script], check=False, stderr=subprocess.DEVNULL).returncode == 1


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(tmp_path_factory.mktemp("prometheus")) as started:
        yield started


async def test_dashboard(watch: Prometheus) -> None:
    """Each figure in it is one of ours, and each query runs in a real Prometheus; those of what is there find it."""
    dashboard = json.loads((DEPLOY / "grafana" / "runwire.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    with start_engine() as back, start_gateway(back.address) as front:
        watch.aim(engine=back.operations, gateway=front.operations)
        async with caller(back.address) as ann:
            await ann.run("echo")
        async with socket(front.address) as connection:
            await connection.send(opening(JSON, "echo"))
            await frames(connection)
        await until(lambda: "runwire_engine_first_event_seconds_sum" in back.figures())
        await until(lambda: 'runwire_gateway_sockets_closed_total{code="1000"}' in front.figures())
        figures = {name.partition("{")[0] for name in back.figures() | front.figures()}
        named = {name for query in queries for name in re.findall(r"(?:runwire|process)_\w+", query)}
        assert named - {"runwire_engine_store_reachable", "runwire_engine_tokens_total"} <= figures
        own = {name.removesuffix("_sum").removesuffix("_count") for name in figures if name.startswith("runwire_")}
        left_out = {name for name in own if name not in named and f"{name}_bucket" not in named}
        assert left_out <= {"runwire_engine_info", "runwire_gateway_info"}
        watch.until("count(up == 1) == 2")
        for query in queries:
            watch.ask(query.replace("$__rate_interval", "1m"))
        for query in queries:
            if " > 0" not in query and "store" not in query and "tokens" not in query:
                watch.until(query.replace("$__rate_interval", "1m"))


async def test_nginx(tmp_path: Path) -> None:
    """Through a real nginx, as its file says: a run by WebSocket and one by gRPC, and the browser's own address."""
    program = found("nginx")
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, *subject],
        check=True,
        capture_output=True,
    )
    address = free_address()
    port = address.rpartition(":")[2]
    trusted = {"TRUSTED_PROXIES": "127.0.0.1/32", "ORIGINS": f"https://localhost:{port}"}
    with_keys = {"JWT_SECRET": "x" * 40}
    with start_engine(**with_keys) as back, start_gateway(back.address, SOCKETS_PER_MINUTE="3", **trusted) as front:
        server = (DEPLOY / "proxies" / "nginx.conf").read_text()
        for old, new in {
            "8443": port,
            "/etc/nginx/tls": str(tmp_path),
            "127.0.0.1:8080": front.address,
            "127.0.0.1:50051": back.address,
        }.items():
            assert old in server
            server = server.replace(old, new)
        logs = "access_log off; error_log stderr warn;"
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{name}_temp_path {tmp_path};" for name in kinds)
        whole = f"daemon off; pid {tmp_path}/pid; events {{}} http {{ {logs} {temporary} {server} }}"
        (tmp_path / "nginx.conf").write_text(whole)
        command: list[str | Path] = [program, "-e", "stderr", "-c", tmp_path / "nginx.conf"]
        assert subprocess.run([*command, "-t"], check=False, capture_output=True).returncode == 0
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            await through(address, certificate.read_bytes(), front, back)
        finally:
            running.terminate()
            running.wait(PATIENCE)


async def through(address: str, certificate: bytes, front: Service, back: Service) -> None:
    """Use both through what is in front of them."""
    token = jwt.encode({"sub": "ann", "exp": time.time() + 600}, "x" * 40, "HS256")
    trust = ssl.create_default_context(cadata=certificate.decode())
    port = address.rpartition(":")[2]
    await until(lambda: answers(port, trust))
    headers = {"Authorization": f"Bearer {token}"}
    options: dict[str, Any] = {"ssl": trust, "additional_headers": headers, "origin": f"https://localhost:{port}"}
    async with connect(f"wss://localhost:{port}/v1/stream", **options) as connection:
        await connection.send(json.dumps({"run": {"agent": "counter", "parameters": {"times": 1000}}}))
        said = [json.loads(frame) for frame in await frames(connection)]
        events = [event for frame in said for event in frame.get("events", ())]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert (connection.close_code, "agentCompleted" in events[-1]) == (1000, True)
    credentials = grpc.ssl_channel_credentials(certificate)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        user = Caller(channel, "ann")
        user.metadata = (("authorization", f"Bearer {token}"),)
        assert kind((await user.run("echo", "hello"))[-1]) == "agent_completed"
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await user.run("nobody")
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
    # Rates are the browser's, as the proxy names it, and not the proxy's: this machine has used up its own.
    for _ in range(2):
        async with connect(f"wss://localhost:{port}/v1/stream", **options):
            pass
    with pytest.raises(InvalidStatus):
        async with connect(f"wss://localhost:{port}/v1/stream", **options):
            pass
    forwarded = {"X-Forwarded-For": "203.0.113.7"}
    async with connect(f"ws://{front.address}/v1/stream", additional_headers=forwarded):
        pass
    assert back.figures()['runwire_engine_runs_ended_total{agent="counter",ending="completed"}'] == 1


def answers(port: str, trust: ssl.SSLContext) -> bool:
    try:
        with urllib.request.urlopen(f"https://localhost:{port}/healthz", context=trust, timeout=PATIENCE) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
