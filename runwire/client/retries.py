"""How soon something is tried again: after pauses that grow, and not more often than a client may in all."""

import asyncio
import random

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
"""Seconds; each further pause is twice as long."""
BURST = 100
"""Attempts that may be made at once, after a while without any."""


class Retries:
    """The attempts of one client."""

    def __init__(self, per_second: float = 20.0) -> None:
        self._gap = 1 / per_second
        self._full = 0.0  # when as many as ever may be made at once

    async def pause(self, attempt: int, at_least: float, until: float, woken: asyncio.Event | None = None) -> bool:
        """Wait until something may be tried again; False when that would be later than `until`.

        Callers that were lost together don't come back together. Whoever is woken tries at once.
        """
        woken, now = woken or asyncio.Event(), asyncio.get_running_loop().time
        own = min(FIRST_PAUSE * 2.0 ** min(attempt, 10), LONGEST_PAUSE)
        await _sleep(max(own * random.uniform(0.5, 1), at_least), woken)  # noqa: S311 - no secret
        while (wait := self._full - now() - (BURST - 1) * self._gap) > 0 and not woken.is_set():
            if now() + wait > until:
                return False
            await _sleep(wait + random.uniform(0, self._gap * BURST), woken)  # noqa: S311 - whoever comes first
        self._full = max(self._full, now()) + self._gap
        woken.clear()
        return True


async def _sleep(seconds: float, woken: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        pass
