"""Law 4 on a cluster: the tests of runs that are processes, word for word."""

from collections.abc import Iterator

import pytest

from tests.laws.test_4_one_terminal_event import (
    test_cleaning_up_is_heard,
    test_completing,
    test_every_tool_call_is_completed,
    test_failing,
    test_its_last_words_are_in_the_log,
    test_taking_too_long,
    test_the_incident_is_in_the_log,
    test_what_it_prints_is_in_the_log,
)
from tests.support.cluster import Cluster
from tests.support.services import Service
from tests.support.times import UNIT

__all__ = [
    "test_cleaning_up_is_heard",
    "test_completing",
    "test_every_tool_call_is_completed",
    "test_failing",
    "test_its_last_words_are_in_the_log",
    "test_taking_too_long",
    "test_the_incident_is_in_the_log",
    "test_what_it_prints_is_in_the_log",
]

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def impatient(cluster: Cluster) -> Iterator[Service]:
    """An engine whose runs may take eight seconds, and 128 MiB: some of that goes into having a place."""
    agents = "tests.agents.rogues"
    with cluster.engine(agents=agents, RUN_TIMEOUT=str(8 * UNIT), RUN_MEMORY="128MiB") as service:
        yield service
