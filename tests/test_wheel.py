"""What is shipped: the wheel, installed outside the checkout."""

import json
import os
import subprocess
import venv
from pathlib import Path

import pytest

from tests.support.services import BIN, ROOT
from tests.support.wheel import built


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, and with this one's libraries but not with this checkout."""
    place = tmp_path_factory.mktemp("wheel")
    venv.create(place / "venv")
    wheel = built(place / "dist")
    install: list[str | Path] = [
        BIN / "pip",
        "--python",
        place / "venv/bin/python",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
    ]
    subprocess.run(install, check=True, capture_output=True)
    libraries = Path(pytest.__file__).parents[1]
    [site] = (place / "venv/lib").glob("python*/site-packages")
    # A line in a .pth file adds one folder; the .pth files in that folder, the checkout's among them, are not read.
    (site / "libraries.pth").write_text(f"{libraries}\n")
    return place / "venv"


def test_it_runs_outside_the_checkout(home: Path, tmp_path: Path) -> None:
    """The installed commands serve, and find what they need in the wheel alone."""
    where = (
        "import engine_service, edge_gateway, runwire.v1.engine_pb2 as m; print(engine_service.__file__, m.__file__)"
    )
    found = subprocess.run([home / "bin/python", "-c", where], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert str(ROOT) not in found.stdout

    env = {"PATH": os.environ["PATH"], "RUNWIRE_ENGINE_LISTEN": "127.0.0.1:0", "RUNWIRE_ENGINE_DEVELOPMENT": "true"}
    with subprocess.Popen(
        [home / "bin/engine-service"], stderr=subprocess.PIPE, text=True, env=env, cwd=tmp_path
    ) as engine:
        assert engine.stderr
        serving = json.loads(engine.stderr.readline())
        env = {
            "PATH": os.environ["PATH"],
            "RUNWIRE_GATEWAY_LISTEN": "127.0.0.1:0",
            "RUNWIRE_GATEWAY_ENGINE": serving["address"],
        }
        with subprocess.Popen([home / "bin/edge-gateway"], stderr=subprocess.PIPE, text=True, env=env) as gateway:
            assert gateway.stderr
            assert json.loads(gateway.stderr.readline())["event"] == "serving"
            gateway.terminate()
            gateway.communicate()  # read to its end: a service whose log breaks off would say so
        engine.terminate()
        engine.communicate()
    assert (engine.returncode, gateway.returncode) == (0, 0)


def test_it_is_typed(home: Path) -> None:
    """The packages say that they are typed, and the contract's types are with them."""
    [site] = (home / "lib").glob("python*/site-packages")
    for file in (
        "engine_service/py.typed",
        "edge_gateway/py.typed",
        "runwire/v1/events_pb2.pyi",
        "runwire/v1/events.proto",
    ):
        assert (site / file).is_file(), file
