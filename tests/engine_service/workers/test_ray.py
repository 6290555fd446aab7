"""What stops the boot of an engine whose agents belong on a cluster: without one, and without Ray."""

from pathlib import Path

import pytest

from tests.support.services import engine as start_engine

ADDRESS = "127.0.0.1:6379"


def refused(*, agents: str = "tests.agents.placed", folder: str = "", **settings: str) -> str:
    """Return what an engine says that does not start."""
    with start_engine(agents=agents, folder=folder, **settings) as service:
        assert service.wait() == 2
        return service.lines[-1]


def test_without_a_cluster() -> None:
    """An agent that belongs on a cluster, and none: no boot, and what to do."""
    says = refused()
    assert "runs on a Ray cluster" in says
    assert "set RUNWIRE_ENGINE_RAY_ADDRESS" in says


def test_all_agents_on_none() -> None:
    """So it is where all agents are to be there."""
    assert "set RUNWIRE_ENGINE_RAY_ADDRESS" in refused(agents="tests.agents.probes", ISOLATION="ray")


def test_without_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cluster, and nothing that speaks to it: no boot, and what to install. Nothing of the core needs it."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ray'] = None\n")  # as if it were not installed
    monkeypatch.delenv("TESTS_STRICT", raising=False)  # which has a sitecustomize of its own
    assert "pip install 'runwire[ray]'" in refused(RAY_ADDRESS=ADDRESS, folder=str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"RAY_ADDRESS": "ray://127.0.0.1:10001"}, "RAY_ADDRESS is HOST:PORT"),
        ({"RAY_RUNTIME_ENV": "{}"}, "RAY_RUNTIME_ENV means nothing without RAY_ADDRESS"),
        ({"RAY_ADDRESS": ADDRESS, "RAY_RUNTIME_ENV": "[]"}, "RAY_RUNTIME_ENV has to be a JSON object"),
        ({"RAY_ADDRESS": ADDRESS, "RAY_RUNTIME_ENV": "{"}, "RAY_RUNTIME_ENV has to be a JSON object"),
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, str], says: str) -> None:
    """What is wrong with the settings is found before anything is started."""
    assert says in refused(agents="tests.agents.probes", **settings)


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ("{'num_gpu': 1}", "has 'num_gpu', which is none of num_cpus"),
        ("{'num_gpus': 'one'}", "has num_gpus='one'"),
        ("{'num_cpus': True}", "has num_cpus=True"),
        ("{'num_cpus': -1}", "which is no amount"),
        ("{'resources': {'a': float('nan')}}", "which is no amount"),
        ("{'runtime_env': {'py_modules': [print]}}", "which is no plain value"),
        ("['num_gpus']", "is no dict"),
        ("{'runtime_env': {'a': 'b' * 20_000}}", "has more than"),
    ],
)
def test_resources_that_are_none(tmp_path: Path, resources: str, says: str) -> None:
    """What no cluster could give stops the boot, and names the class that wants it."""
    (tmp_path / "wanting.py").write_text(
        f"from engine_service import Agent\nclass Wanting(Agent):\n    resources = {resources}\n"
        "    async def run(self, context, input):\n        return ''\n"
    )
    told = refused(agents="wanting", folder=str(tmp_path))
    assert "wanting.Wanting: resources" in told
    assert says in told
