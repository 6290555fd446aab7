"""Who may start how many. The book of the runs there are."""

import asyncio
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from engine_service.rates import Rates
from engine_service.refusal import exists, too_many, unavailable
from engine_service.run import Run


class Admission:
    """Lets runs in as long as there are places, and gives each place back exactly once."""

    def __init__(self, max_runs: int, max_runs_per_user: int, rates: Rates) -> None:
        self._rates = rates
        self._max_runs = max_runs
        self._max_runs_per_user = max_runs_per_user
        self._runs: dict[tuple[str, str], Run] = {}
        self._users = Counter[str]()
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def admit(self, run: Run) -> Generator[Run]:
        """Hold a place for a run, or raise the reason why there is none."""
        user_id, key = run.work.user_id, (run.work.user_id, run.work.run_id)
        if key in self._runs:  # before all else: a caller who lost it is to hear that it is there, whatever else is so
            raise exists(run.work.run_id)
        if self._closed:
            raise unavailable("The engine is shutting down. Try again.", "DRAINING")
        if self._users[user_id] >= self._max_runs_per_user:
            sentence = f"You have {self._max_runs_per_user} runs already, which is as many as one may have."
            raise too_many(sentence, "TOO_MANY_RUNS_OF_USER")
        if len(self._runs) >= self._max_runs:
            raise too_many("The engine is busy. Try again in a moment.", "TOO_MANY_RUNS")
        if wait := self._rates.take(user_id):
            sentence = "You have started as many runs as one may in a minute. Try again in a moment."
            raise too_many(sentence, "TOO_MANY_RUNS_PER_MINUTE", wait)
        self._runs[key] = run
        self._users[user_id] += 1
        self._empty.clear()
        try:
            yield run
        finally:
            del self._runs[key]
            self._users[user_id] -= 1
            if not self._users[user_id]:
                del self._users[user_id]
            if not self._runs:
                self._empty.set()

    def find(self, user_id: str, run_id: str) -> Run | None:
        """Return a user's run, if there is one. What belongs to another user does not exist."""
        return self._runs.get((user_id, run_id))

    def runs(self) -> tuple[Run, ...]:
        """Return the runs there are."""
        return tuple(self._runs.values())

    def close(self) -> None:
        """Let no more runs in."""
        self._closed = True

    async def wait_empty(self) -> None:
        """Wait until there are no runs."""
        await self._empty.wait()
