"""How long a run may take: its time stands still while it waits for a person, and does nothing else."""

STANDSTILL = 3600.0
"""Seconds that a run's time may stand still, all together."""


class Clock:
    """One run's time, by whatever clock `now` is told."""

    def __init__(self, seconds: float, now: float) -> None:
        self._first = self._end = now + seconds
        self._left = STANDSTILL
        self._since: float | None = None

    @property
    def end(self) -> float:
        """When the run's time is over, if nothing changes until then."""
        return self._end if self._since is None else self._end + self._left

    @property
    def extension(self) -> float:
        """By how much later that is than it was in the beginning."""
        return self.end - self._first

    def left(self, now: float) -> float:
        """Return how much time there is, without what it may stand still."""
        return self._end - (now if self._since is None else self._since)

    def stand_still(self, now: float) -> None:
        """Count no time from now on."""
        if self._since is None:
            self._since = now

    def go_on(self, now: float) -> None:
        """Count time again."""
        if self._since is not None:
            still = min(now - self._since, self._left)
            self._end += still
            self._left -= still
            self._since = None
