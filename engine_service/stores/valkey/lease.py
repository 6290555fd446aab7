"""That an engine lives: told to the store all the time, and believed for a while. What the dead leave is taken over."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice

import structlog
from redis.exceptions import ConnectionError as UnreachableError

from engine_service.stores.valkey.keys import Name, Run
from engine_service.stores.valkey.link import AWAY, PAUSE, Link, repeat

LEASE = 5.0
"""Seconds that an engine is believed to live after it was heard of."""
BEAT = 1.0
"""Seconds between two times that it is."""
CLAIM_FOR = LEASE
"""Seconds that whoever takes a dead engine's runs over has for it, until another one does."""
AT_ONCE = 32
"""Runs that are taken over at once."""
MARGIN = 1.0
"""Seconds before its lease ends in which an engine's own runs do: their processes are killed then."""

NEW, KNOWN = "new", "known"
"""Whether an engine's name is in the store already."""

RENEW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('ZSCORE', KEYS[1], ARGV[1]) or ARGV[3] == 'new' then
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
  return 1
end
return 0
"""
"""Says that an engine lives; 0 when another has taken its runs over."""

HOLD = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], 'XX', now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.max(ARGV[2], redis.call('PTTL', KEYS[1])))
if ARGV[3] == '0' then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return 1
"""
"""Holds a run's place; of one that is not resumable, also that it is known."""

CLAIM = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1)[1]
if not dead then return false end
local name = string.gsub(dead, '!', '')
redis.call('ZREM', KEYS[1], dead)
redis.call('ZADD', KEYS[1], now + ARGV[1], name .. '!')
return name
"""
"""Takes a dead engine's runs over, for a while: whoever dies meanwhile is taken over as well."""


TakeOver = Callable[[str, str], Awaitable[None]]
"""Takes over a run, by what it is called in lists, from an engine."""


def held_for(*, is_lasting: bool) -> int:
    """Return for how many milliseconds a place is held: that of a run that may go on, until it was taken over."""
    return int((LEASE + (CLAIM_FOR if is_lasting else 0)) * 1000)


class Lease:
    """One engine's life, as others see it."""

    def __init__(
        self,
        link: Link,
        name: Name,
        take_over: TakeOver,
        go_on: Callable[[], Awaitable[None]],
        on_lapse: Callable[[], None],
    ) -> None:
        self._link = link
        self._name = name
        self._take_over = take_over
        self._go_on = go_on
        self._on_lapse = on_lapse
        self._renew = link.waiting.register_script(RENEW)
        self._hold = link.redis.register_script(HOLD)
        self._claim = link.redis.register_script(CLAIM)
        self._log = structlog.get_logger()
        self._is_away = self._has_lapsed = False
        self._state = NEW
        self.held = dict[Run, bool]()
        """Runs of ours that have places, and whether they are resumable."""
        self._timer: asyncio.TimerHandle | None = None
        self.on_renewed: Callable[[float], None]
        """Hears of it each time that it is later."""

    async def begin(self) -> None:
        """Be there. Raises what means that the store is away."""
        await self._beat()

    @property
    def is_over(self) -> bool:
        """Whether others may have our runs: then none is to begin."""
        return self._timer is None or asyncio.get_running_loop().time() > self._timer.when()

    @property
    def is_away(self) -> bool:
        """Whether the store was away when it was last heard of."""
        return self._is_away

    def check(self) -> None:
        """Raise what means that the store is away, if it was when it was last heard of: nobody waits for it anew."""
        if self._is_away:
            raise UnreachableError("it was away a moment ago")

    async def work(self) -> None:
        """Live, for ever, and look who doesn't."""
        async with asyncio.TaskGroup() as group:  # what the dead have left may take longer than we are believed
            group.create_task(self._live())
            group.create_task(repeat(self._look))

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PAUSE if self._is_away else BEAT)
            # What is asked waits for its answer as long as that is of use; but nobody else waits meanwhile.
            missed = loop.call_later(BEAT, self._miss)
            try:
                await self._beat()
            except AWAY:
                self._miss()
            else:
                if self._is_away:
                    self._log.info("the store is back")
                self._is_away = False
            finally:
                missed.cancel()

    def _miss(self) -> None:
        if not self._is_away:
            self._log.warning("the store is away")
        self._is_away = True

    async def end(self) -> None:
        """Be there no longer."""
        if self._timer:
            self._timer.cancel()
        await self._give_up(self._name.now)  # others look after what is kept

    def _lapse(self) -> None:
        self._log.error("the lease is over: resumable runs end here")
        self._has_lapsed = True
        self._on_lapse()

    async def _give_up(self, name: str) -> None:
        await self._link.redis.zadd(self._link.keys.engines, {name: 0}, xx=True)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time()
        lease = int(LEASE * 1000)
        if self._has_lapsed:  # others may have our runs: we come back as another one
            await self._give_up(self._name.now)
            self._name.renew()
            self._has_lapsed, self._state = False, NEW
        if not await self._renew(keys=[self._link.keys.engines], args=[self._name.now, lease, self._state]):
            self._lapse()
        if self._has_lapsed:  # or while we waited
            await self._beat()
            return
        self._state = KNOWN
        # Not looked at, but woken: where nothing was done for long, it is heard before our processes' ends are.
        if self._timer:
            self._timer.cancel()
        self._timer = loop.call_at(since + LEASE - MARGIN, self._lapse)
        self.on_renewed(since + LEASE - MARGIN)
        pipe = self._link.redis.pipeline(transaction=False)
        for run, is_lasting in self.held.items():
            about = [run.run_id, held_for(is_lasting=is_lasting), int(is_lasting)]
            await self._hold(keys=[run.places, run.about], args=about, client=pipe)
        await pipe.execute()

    async def _look(self) -> None:
        """Take over what the dead have left."""
        await asyncio.sleep(BEAT)
        if self.is_over:
            return  # we may be dead ourselves
        await self._go_on()
        while name := await self._claim(keys=[self._link.keys.engines], args=[int(CLAIM_FOR * 1000)]):
            dead = name.decode()
            owned, failed = self._link.keys.owned(dead), list[BaseException]()
            runs = await self._link.redis.smembers(owned)
            self._log.warning("an engine is gone", engine=dead, runs=len(runs))
            for some in batched(runs, AT_ONCE):
                settling = (self._take_over(member.decode(), dead) for member in some)
                told = await asyncio.gather(*settling, return_exceptions=True)  # one is not to hold up others
                failed += [said for said in told if isinstance(said, BaseException)]
                if settled := [each for each, said in zip(some, told, strict=True) if said is None]:
                    await self._link.redis.srem(owned, *settled)
            if failed:
                raise failed[0]  # it is claimed again, a little later
            await self._link.redis.zrem(self._link.keys.engines, f"{dead}!")


def batched(items: Iterable[bytes], size: int) -> Iterable[list[bytes]]:
    """Give so many at once."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some
