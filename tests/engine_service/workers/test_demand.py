"""How many processes wait for runs."""

from hypothesis import given
from hypothesis import strategies as st

from engine_service.workers.demand import LATELY, LEAST, Demand


def test_a_burst_is_remembered_for_a_while() -> None:
    """As many wait as came at once, up to the bound; and few again when that was long ago."""
    now = 100.0
    demand = Demand(16, lambda: now)
    assert demand.wanted == LEAST
    for _ in range(10):
        demand.take()
    assert demand.wanted == 10
    for _ in range(30):
        demand.take()
    assert demand.wanted == 16
    now += LATELY - 1
    demand.take()
    assert demand.wanted == 16
    now += 3
    assert demand.wanted == LEAST


@given(st.floats(0, 2), st.integers(1, 60))
def test_a_burst_is_one_whenever_it_comes(begin: float, many: int) -> None:
    """What comes within a third of a second is needed at once, whatever a clock shows meanwhile."""
    now = begin
    demand = Demand(64, lambda: now)
    for _ in range(many):
        now += 0.33 / many
        demand.take()
    assert demand.wanted == max(many, LEAST)


def test_a_steady_trickle_needs_few() -> None:
    """One run a second is no burst, however long it goes on."""
    now = 0.0
    demand = Demand(64, lambda: now)
    for second in range(300):
        now = float(second)
        demand.take()
        assert demand.wanted == LEAST


@given(st.lists(st.floats(0, 30), max_size=200), st.integers(LEAST, 64))
def test_never_fewer_nor_more(pauses: list[float], most: int) -> None:
    """Whatever comes, it is between the least and the most; and no more than came within a while."""
    now = 0.0
    demand = Demand(most, lambda: now)
    for count, pause in enumerate(pauses, 1):
        now += pause
        demand.take()
        assert LEAST <= demand.wanted <= min(most, max(count, LEAST))
