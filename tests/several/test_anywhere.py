"""Whatever callers do to resumable runs, in whatever order, and at whichever engine: events are exactly 1 … n."""

import itertools
from typing import Any

import pytest

from tests.laws.test_resume_model import USERS, Callers
from tests.support.clients import Caller
from tests.support.model import run_machine
from tests.support.services import engine
from tests.support.valkey import valkey


class Roaming:
    """A user who asks another engine each time."""

    def __init__(self, callers: list[Caller]) -> None:
        self._callers = itertools.cycle(callers)

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self._callers), name)


class Roamers(Callers):
    """Two users, and two engines."""

    def __init__(self) -> None:
        super().__init__()
        self.callers = {user: Roaming([Caller(channel, user) for channel in self.channels]) for user in USERS}
        self.passed = True  # whose window passed is in one engine's log


@pytest.mark.force
@pytest.mark.timeout(240)
def test_roamers() -> None:
    with valkey() as store, engine(MAX_RUNS_PER_USER="64", STORE=store.url) as other:
        run_machine(Roamers, other.address, STORE=store.url)
