"""What tests of runs on a cluster share: the cluster."""

from collections.abc import Iterator

import pytest

from tests.support.cluster import ON_LOOPBACK, Cluster
from tests.support.services import STRICT


@pytest.fixture(scope="module", autouse=True)
def strictness() -> Iterator[None]:
    """Nothing is strict: an engine's driver has its environment, and Ray warns of much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(STRICT, raising=False)
        for name, value in ON_LOOPBACK.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes, one of which says that it has a GPU."""
    with Cluster() as started:
        started.add(num_cpus=8, num_gpus=1)
        yield started
