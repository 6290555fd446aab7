"""How often: a token bucket for each key, and a bound on how many there are."""

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_KEYS = 100_000


class Rates:
    """Lets each key through so many times a minute, all at once or one by one."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._buckets = OrderedDict[str, tuple[float, float]]()

    def take(self, key: str) -> float:
        """Return 0 when a key may pass, and otherwise the seconds after which it may."""
        now = self._clock()
        left, since = self._buckets.pop(key, (self._most, now))
        left = min(self._most, left + (now - since) * self._per_second)
        wait = 0.0 if left >= 1 else (1 - left) / self._per_second
        self._buckets[key] = (left if wait else left - 1, now)
        if len(self._buckets) > MAX_KEYS:  # whoever came longest ago is forgotten, and so has a full bucket again
            self._buckets.popitem(last=False)
        return wait
