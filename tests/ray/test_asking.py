"""Agents on a cluster ask their users, through every door."""

from collections.abc import Iterator

import pytest

from tests.asking.test_asking import (
    door,
    test_a_question,
    test_a_tool_that_asks,
    test_an_approval,
    test_cancelled_while_asking,
    test_declined,
    test_expired,
    test_in_the_order_in_which_it_was_said,
    test_ten_in_any_order,
)
from tests.support.cluster import Cluster
from tests.support.services import Service, gateway

__all__ = [
    "door",
    "test_a_question",
    "test_a_tool_that_asks",
    "test_an_approval",
    "test_cancelled_while_asking",
    "test_declined",
    "test_expired",
    "test_in_the_order_in_which_it_was_said",
    "test_ten_in_any_order",
]

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def services(cluster: Cluster) -> Iterator[tuple[Service, Service]]:
    with cluster.engine(agents="tests.agents.asking") as back, gateway(back.address) as front:
        assert front.address
        yield back, front
