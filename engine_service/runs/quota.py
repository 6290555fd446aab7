"""What one user may have, and how often: counted over all engines that share a store."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal

from engine_service.runs.refusal import exists, too_many, too_many_runs, unavailable
from engine_service.runs.run import Run
from engine_service.stores.store import AwayError, Store, TakenError

What = Literal["runs", "resumes", "calls"]
DONE: dict[What, str] = {
    "runs": "asked for as many runs as one may in a minute",
    "resumes": "resumed runs as often as one may in a minute",
    "calls": "answered, or asked for your runs, as often as one may in a minute",
}


class Quota:
    """Counts what users do, and holds places for their runs."""

    def __init__(self, store: Store, max_runs_per_user: int) -> None:
        self._store = store
        self._max_runs_per_user = max_runs_per_user

    async def take(self, what: What, pays: str) -> None:
        """Count that somebody does something, whatever becomes of it. Raises a Refusal when that is too often."""
        if wait := await self._store.take(what, pays):
            reason = f"TOO_MANY_{what.upper()}_PER_MINUTE"
            raise too_many(f"You have {DONE[what]}. Try again in a moment.", reason, wait)

    @asynccontextmanager
    async def placed(self, run: Run, window: float = 0) -> AsyncGenerator[None]:
        """Hold one of a user's places for a run. Raises a Refusal when there is none."""
        user_id, run_id = run.work.user_id, run.work.run_id
        try:
            place = await self._store.place(user_id, run.info(), window)
        except TakenError as taken:
            raise exists(run_id) if taken.exists else too_many_runs(self._max_runs_per_user) from None
        except AwayError:
            raise unavailable("A run that outlives its connection cannot begin right now.", "STORE_AWAY") from None
        try:
            yield
        finally:
            place()
