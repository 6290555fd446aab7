"""A run's time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_service.clock import STANDSTILL, Clock


@given(st.floats(1, 1000), st.lists(st.tuples(st.floats(0, 2000), st.floats(0, 2000)), max_size=10))
def test_it_ends_later_by_what_it_stood_still(seconds: float, story: list[tuple[float, float]]) -> None:
    """Whatever happens: time that passes while it stands still is added, and an hour of it at most."""
    now, still = 100.0, 0.0
    clock = Clock(seconds, now)
    for going, standing in story:
        now += going
        clock.stand_still(now)
        clock.stand_still(now + standing / 2)  # said again, nothing changes
        assert clock.end == pytest.approx(100 + seconds + STANDSTILL)
        now += standing
        clock.go_on(now)
        clock.go_on(now + 1)
        still = min(still + standing, STANDSTILL)
        assert clock.end == pytest.approx(100 + seconds + still)
        assert clock.extension == pytest.approx(still)
