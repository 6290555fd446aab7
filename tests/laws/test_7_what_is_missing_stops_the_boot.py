"""What is missing at boot stops the boot, with one line that says what to do."""

import subprocess
import time
import traceback
from pathlib import Path

import pytest

from engine_service.settings import BootError, Settings
from tests.support.services import BIN, ROOT, Service, http_status
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.times import PATIENCE


def refusal(service: Service) -> str:
    """Return the one line with which a service refused to start."""
    with service:
        assert service.wait() == 2, service.records
    [line] = service.lines
    assert len(service.records) == 1
    assert line.startswith(("engine-service: ", "edge-gateway: "))
    return line


def test_the_port_is_taken(engine: Service) -> None:
    """A second engine on the same port does not start: ports are not shared."""
    assert f"cannot listen on {engine.address}" in refusal(start_engine(LISTEN=engine.address))


def test_the_gateways_port_is_taken(gateway: Service) -> None:
    """A second gateway on the same port does not start."""
    assert f"cannot listen on {gateway.address}" in refusal(start_gateway("127.0.0.1:1", LISTEN=gateway.address))


@pytest.mark.parametrize(
    ("agents", "says"),
    [
        ("no.such.module", "the agents module 'no.such.module' cannot be imported: there is no module 'no'; is its"),
        ("json", "there is no agent in the module 'json'"),
        ("tests.agents.twins", "two agents are named 'twin': tests.agents.twins."),
        ("tests.agents.raises", "the agents module 'tests.agents.raises' cannot be imported: ZeroDivisionError"),
        ("tests.agents.raises", "(raises.py, line 3)"),
        ("tests.agents.needy", "its constructor must need no arguments"),
        ("tests.agents.sync", "run must be an async function"),
        ("tests.agents.elsewhere", "isolation must be 'jail', 'process', 'ray' or 'task', not 'moon'"),
    ],
)
def test_agents_that_cannot_be_had(agents: str, says: str) -> None:
    """An agents module that is unknown, empty, broken or at odds with another stops the boot."""
    assert says in refusal(start_engine(agents=agents))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"MAX_RUNS": "many"}, "RUNWIRE_ENGINE_MAX_RUNS=many: "),
        ({"MAX_RUNS": "0"}, "RUNWIRE_ENGINE_MAX_RUNS=0: "),
        ({"HEARTBEAT": "-1"}, "RUNWIRE_ENGINE_HEARTBEAT=-1: "),
        ({"MAX_EVENT_BYTES": "1 parsec"}, "RUNWIRE_ENGINE_MAX_EVENT_BYTES=1 parsec: "),
        ({"LISTEN": "50051"}, "RUNWIRE_ENGINE_LISTEN=50051: "),
        ({"MAX_RUN": "3"}, "RUNWIRE_ENGINE_MAX_RUN is no setting; did you mean RUNWIRE_ENGINE_MAX_RUNS?"),
        ({"TLS_CERT": "/no/such/file", "TLS_KEY": "/no/such/file"}, "RUNWIRE_ENGINE_TLS_CERT=/no/such/file: "),
        ({"TLS_CERT": str(ROOT / "LICENSE"), "TLS_KEY": str(ROOT / "LICENSE")}, "cannot be used"),
        ({"TLS_CERT": str(ROOT / "LICENSE")}, "TLS_CERT and TLS_KEY go together"),
        ({"LISTEN": "0.0.0.0:0"}, "which is not loopback"),
    ],
)
def test_engine_settings_that_are_wrong(settings: dict[str, str], says: str) -> None:
    """A setting that is malformed or unknown stops the boot."""
    assert says in refusal(start_engine(**settings))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ENGINE": "nonsense"}, "RUNWIRE_GATEWAY_ENGINE=nonsense: "),
        ({"ENGINE": "127.0.0.1:50051,127.0.0.1:99999"}, "RUNWIRE_GATEWAY_ENGINE="),
        ({"OPEN_TIMEOUT": "soon"}, "RUNWIRE_GATEWAY_OPEN_TIMEOUT=soon: "),
        ({"COLOUR": "red"}, "RUNWIRE_GATEWAY_COLOUR is no setting"),
        ({"TLS_CERT": str(ROOT / "LICENSE"), "TLS_KEY": str(ROOT / "LICENSE")}, "cannot be used"),
    ],
)
def test_gateway_settings_that_are_wrong(settings: dict[str, str], says: str) -> None:
    """A setting that is malformed or unknown stops the boot; so does an engine's address that is none."""
    assert says in refusal(start_gateway("127.0.0.1:1", **settings))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--max-runs=many"], "RUNWIRE_ENGINE_MAX_RUNS=many: "),
        (["--nonsense"], "--nonsense is no flag; see --help"),
        (["--max-run", "3"], "--max-run is no flag; did you mean --max-runs?"),
        (["--max-runs"], "--max-runs needs a value"),
        (["--max-runs", "3", "4"], "belongs to no flag"),
    ],
)
def test_flags_that_are_wrong(flags: list[str], says: str) -> None:
    """A flag that is malformed or unknown stops the boot, just as a variable does."""
    assert says in refusal(start_engine(*flags))


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        (["--jwt-secrets", "hunter2"], {}),
        (["--jwt-secrets=horse hunter2 battery"], {}),
        (["--jwt-secre", "hunter2"], {}),
        ([], {"JWT_SECRET_FILE": "hunter2"}),
        ([], {"JWT_KEYS_URL": "ftp://user:hunter2@example.com/"}),
        ([], {"JWT_SECRET": "hunter2hunter2hunter2hunter2hunter2", "DEVELOPMENT": "true"}),
        ([], {"RAY_ADDRESS": "127.0.0.1:1", "RAY_RUNTIME_ENV": '["hunter2"]'}),
        ([], {"RAY_RUNTIME_ENV": '{"env_vars": {"KEY": "hunter2"}}'}),
        (["--ray-runtime-env", "hunter2"], {}),
    ],
)
def test_a_boot_that_fails_tells_no_secret(flags: list[str], settings: dict[str, str]) -> None:
    """Whatever was meant by a flag or a setting that is wrong, what may be a secret is not said."""
    assert "hunter2" not in refusal(start_engine(*flags, **settings))


def test_a_secret_is_in_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it where an error came from, for whoever prints all of that."""
    monkeypatch.setenv("RUNWIRE_ENGINE_DEVELOPMENT", "true")
    monkeypatch.setenv("RUNWIRE_ENGINE_JWT_SECRET", "hunter2" * 5)
    with pytest.raises(BootError) as raised:
        Settings.load([])
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("command", ["engine-service", "edge-gateway"])
def test_help_explains_every_setting(command: str, tmp_path: Path) -> None:
    """`--help` has a line for each setting."""
    done = subprocess.run([BIN / command, "--help"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "--listen" in done.stdout
    assert "--drain-grace" in done.stdout
    assert "seconds that" in done.stdout


def test_flags_and_variables_are_the_same() -> None:
    """What is an environment variable is a flag, and the flag wins."""
    with start_engine("--listen", "127.0.0.1:0", "--max-event-bytes", "2MiB", LISTEN="127.0.0.1:1") as service:
        assert service.port != 1


def test_an_engine_that_is_not_up_is_no_error_for_the_gateway() -> None:
    """`/readyz` says 503 until the engine is there, and 200 from then on; `/healthz` says 200 all the time."""
    with start_engine() as first:
        address = first.address
    with start_gateway(address) as front:
        assert (http_status(front, "/healthz"), http_status(front, "/readyz")) == (200, 503)
        with start_engine(LISTEN=address) as back:
            assert back.address == address
            patience = time.monotonic() + PATIENCE
            while http_status(front, "/readyz") != 200:  # gRPC comes back by itself, after a pause of its own
                assert time.monotonic() < patience
            assert http_status(front, "/healthz") == 200


@pytest.mark.parametrize("service", [start_engine, lambda: start_gateway("127.0.0.1:1")])
def test_a_signal_ends_it_with_status_0(service: object) -> None:
    """SIGTERM ends a service politely."""
    with service() as started:  # type: ignore[operator]
        assert started.address
        assert started.stop() == 0
