"""How many processes should wait for runs: as many as were lately needed at once."""

import time
from collections import deque
from collections.abc import Callable
from itertools import pairwise

LATELY = 60.0
"""Seconds for which a burst is remembered."""
MOMENT = 0.5
"""Seconds of a moment. What comes in two that follow one another comes at once: a burst knows nothing of our clock."""
LEAST = 4
"""Processes that wait when it is quiet. Each fork that is done ahead brings a first event 2 ms closer."""


class Demand:
    """Counts what is needed, moment by moment, and forgets it after a while."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._moments = deque[tuple[int, int]]()  # each with how many were needed in it, oldest first

    def take(self) -> None:
        """Count one that is needed now."""
        moment, needed = self._now(), 0
        if self._moments and self._moments[-1][0] == moment:
            _, needed = self._moments.pop()
        self._moments.append((moment, needed + 1))
        self._forget()

    @property
    def wanted(self) -> int:
        """How many should wait."""
        self._forget()
        alone = (needed for _, needed in self._moments)
        together = (one + two for (before, one), (after, two) in pairwise(self._moments) if after == before + 1)
        return min(max((LEAST, *alone, *together)), self._most)

    def _now(self) -> int:
        return int(self._clock() / MOMENT)

    def _forget(self) -> None:
        while self._moments and self._moments[0][0] < self._now() - LATELY / MOMENT:
            self._moments.popleft()
