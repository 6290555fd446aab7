"""Engines that share a store."""

from collections.abc import Iterator

import pytest

from tests.support.services import Service
from tests.support.services import engine as start_engine
from tests.support.valkey import Valkey, valkey

AGENTS = "tests.agents.probes,tests.agents.asking,tests.agents.dirt,tests.agents.savers"


@pytest.fixture
def store() -> Iterator[Valkey]:
    with valkey() as server:
        yield server


@pytest.fixture
def engines(store: Valkey) -> Iterator[tuple[Service, Service]]:
    with start_engine(agents=AGENTS, STORE=store.url) as one, start_engine(agents=AGENTS, STORE=store.url) as other:
        yield one, other
