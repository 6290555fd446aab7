"""Who may start how many. The book of the runs there are."""

import asyncio
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from engine_service.runs.refusal import draining, exists, too_many, too_many_runs
from engine_service.runs.run import Run
from engine_service.runs.tally import Tally

UNREAD = 4
"""How many calls one user may have whose end was not read yet, for each run that they may have at once."""


class Admission:
    """Lets runs in as long as there are places, and gives each place back exactly once."""

    def __init__(self, max_runs: int, max_runs_per_user: int) -> None:
        self._max_runs = max_runs
        self._max_runs_per_user = max_runs_per_user
        self._runs: dict[str, dict[str, Run]] = {}  # by user, and id
        self._held = Tally()
        """Places that are taken, by whose limits count."""
        self.unread = Tally()
        """Calls whose callers read nothing: gRPC keeps them, and what it could not send, until the callers are gone.

        Each takes a place of its user's, and nobody else's."""
        self.sent_away = Tally()
        """Calls that are being refused: their callers may have lost their connections, and not know yet."""
        self._reserved = 0
        self.is_closed = False
        """Whether no more are let in."""
        self._empty = asyncio.Event()
        self._empty.set()

    def check(self, user_id: str, run_id: str, pays: str = "") -> None:
        """Raise the reason why a user cannot have another run, if there is one: of their limits, or whose that pays."""
        pays = pays or user_id
        if self.find(user_id, run_id):  # before all else: a caller who lost it is to hear that it is there
            raise exists(run_id)
        if self.is_closed:
            raise draining()
        if self._held[pays] + self.unread[pays] >= self._max_runs_per_user:
            raise too_many_runs(self._max_runs_per_user)
        if self._held.total + self._reserved >= self._max_runs:
            raise too_many("The engine is busy. Try again in a moment.", "TOO_MANY_RUNS")

    def reserve(self) -> Callable[[], None]:
        """Keep a place for a run that is yet to come, and return what gives it back."""
        self._reserved += 1

        def give_back() -> None:
            self._reserved -= 1

        return give_back

    @contextmanager
    def admit(self, run: Run) -> Generator[Run]:
        """Hold a place for a run that was checked."""
        user_id, run_id = run.work.user_id, run.work.run_id
        self._runs.setdefault(user_id, {})[run_id] = run
        self._empty.clear()
        try:
            with self._held.one(run.work.pays):
                yield run
        finally:
            del self._runs[user_id][run_id]
            if not self._runs[user_id]:
                del self._runs[user_id]
            if not self._runs:
                self._empty.set()

    def check_resume(self, pays: str) -> None:
        """Raise the reason why one cannot resume a run, if there is one: too many hear no end."""
        if self.unread[pays] + self.sent_away[pays] >= UNREAD * self._max_runs_per_user:
            raise too_many("You have too many calls that you do not read. Try again in a moment.", "UNREAD_CALLS")

    def find(self, user_id: str, run_id: str) -> Run | None:
        """Return a user's run, if there is one. What belongs to another user does not exist."""
        return self.of(user_id).get(run_id)

    def of(self, user_id: str) -> Mapping[str, Run]:
        """Return a user's runs, by their ids."""
        return self._runs.get(user_id, {})

    def runs(self) -> tuple[Run, ...]:
        """Return the runs there are."""
        return tuple(run for runs in self._runs.values() for run in runs.values())

    def close(self) -> None:
        """Let no more runs in."""
        self.is_closed = True

    async def wait_empty(self) -> None:
        """Wait until there are no runs."""
        await self._empty.wait()
