"""What engines share through Valkey, or Redis: put together here."""

import asyncio
import datetime
from collections.abc import Callable, Mapping
from contextlib import suppress

from runwire.v1.engine_pb2 import RunInfo

from engine_service.stores.memory import MemoryJournals, MemoryStore
from engine_service.stores.store import AwayError, Journal, Message, Owner, Place, Tail, TakenError
from engine_service.stores.valkey.bus import Bus
from engine_service.stores.valkey.journal import Scribe, SharedJournal, Tenure
from engine_service.stores.valkey.keys import Name
from engine_service.stores.valkey.lease import LEASE, Lease, held_for
from engine_service.stores.valkey.link import AWAY, link
from engine_service.stores.valkey.tails import Tails, ValkeyTail
from engine_service.stores.valkey.takeover import Gone, Takeover
from engine_service.wire import Work

FIRST_EPOCH = 1
PLACED = ("engine", "info", "bases", "window")
"""What is looked up of a run."""

PLACE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local places, kept, about, log = unpack(KEYS)
local run, engine, most, hold, life, info, window = unpack(ARGV)
if redis.call('EXISTS', about) == 1 then return 'exists' end
redis.call('ZREMRANGEBYSCORE', places, '-inf', now)
if redis.call('ZCARD', places) >= tonumber(most) then return 'full' end
redis.call('ZADD', places, now + hold, run)
redis.call('PEXPIRE', places, math.max(hold, redis.call('PTTL', places)))
redis.call('HSET', about, 'engine', engine, 'epoch', 1, 'attempt', 1, 'bases', '1:0', 'info', info, 'window', window)
if life == '0' then
  redis.call('PEXPIRE', about, hold)
else
  redis.call('XADD', log, '1-0', 'f', 1)
  redis.call('PEXPIRE', log, life)
  redis.call('PEXPIRE', about, life)
end
redis.call('ZREMRANGEBYSCORE', kept, '-inf', now)
redis.call('ZADD', kept, now + math.max(life, hold), run)
redis.call('PEXPIRE', kept, math.max(life, hold, redis.call('PTTL', kept)))
return 'in'
"""
"""Gives a run a place, and of a resumable one begins the journal."""

RATE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local each, most = 60000 / ARGV[1], 60000
local used = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
if used + each - now > most + 0.5 then return tostring((used + each - now - most) / 1000) end
redis.call('SET', KEYS[1], string.format('%.3f', used + each), 'PX', math.ceil(used + each - now))
return '0'
"""
"""Counts that something is done; says after how many seconds it may be, where it may not."""

DAYS = 2 * 86_400
"""Seconds that a day's sum is kept."""


class ValkeyStore:
    """What engines share, as one of them sees it. Journals are in its memory, too, and bounded there."""

    def __init__(
        self,
        url: str,
        journals: MemoryJournals,
        per_minute: Mapping[str, int],
        *,
        max_runs_per_user: int,
        longest: float,
    ) -> None:
        self._name = Name()
        self._journals = journals
        self._per_minute = per_minute
        self._alone = MemoryStore(journals, per_minute)
        """Counts while the store is away."""
        self._max_runs_per_user = max_runs_per_user
        self._longest = longest
        self._link = link(url)
        self._place = self._link.redis.register_script(PLACE)
        self._rate = self._link.redis.register_script(RATE)
        self._scribe = Scribe(self._link, self._name)
        self._tails = Tails(self._link, self._name.first)
        self._lease = Lease(self._link, self._name, self._settle, self._go_on, self._lapse)
        self._owner: Owner
        self._bus: Bus
        self._takeover: Takeover
        self._working: asyncio.Task[None] | None = None

    @property
    def engine(self) -> str:
        """By what this engine is known now."""
        return self._name.now

    @property
    def is_away(self) -> bool:
        """Whether it could not be reached a moment ago."""
        return self._lease.is_away

    async def begin(self, owner: Owner) -> None:
        """Go there. Raises AwayError, with what an operator is to do."""
        self._owner = owner
        self._bus = Bus(self._link, self._name, owner)
        self._takeover = Takeover(
            self._link,
            self._name,
            self._journals,
            self._scribe,
            self._lease,
            owner,
            self._bus,
            max_runs_per_user=self._max_runs_per_user,
            longest=self._longest,
        )
        self._lease.on_renewed = owner.renew
        await self._link.check()
        try:
            await self._lease.begin()
        except AWAY as error:
            raise AwayError(f"RUNWIRE_ENGINE_STORE: the store cannot be used: {error}") from error
        self._working = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Leave it: what is kept for others stays."""
        if self._working:
            with suppress(TimeoutError):
                async with asyncio.timeout(LEASE):
                    await self._scribe.finish()
            self._working.cancel()
            await asyncio.wait((self._working,))
            with suppress(*AWAY):  # then others take it for dead, a little later
                await self._lease.end()
        await self._link.close()

    async def take(self, what: str, user_id: str) -> float:
        """Return 0 when a user may do something once more, and otherwise the seconds after which they may."""
        key = self._link.keys.rate(user_id, what)
        try:
            self._lease.check()
            return float(await self._rate(keys=[key], args=[self._per_minute[what]]))
        except AWAY:
            return await self._alone.take(what, user_id)

    async def spend(self, user_id: str, tokens: int) -> int:
        """Count tokens that a user's runs have used, and return how many that are today, as UTC has it."""
        key = self._link.keys.spent(user_id, datetime.datetime.now(datetime.UTC).date().isoformat())
        try:
            self._lease.check()
            spent = int(await self._link.redis.incrby(key, tokens))
            await self._link.redis.expire(key, DAYS)
        except AWAY:  # what is used meanwhile is counted here alone
            return await self._alone.spend(user_id, tokens)
        return spent

    async def place(self, user_id: str, info: RunInfo, window: float) -> Callable[[], None]:
        """Hold a place for a run, and return what gives it back."""
        keys, run_id = self._link.keys, info.run_id
        run = keys.run(user_id, run_id, info.service)
        name = self.engine
        owned = keys.owned(name)
        life = int((self._longest + window) * 1000) if window else 0
        try:
            self._lease.check()
            if window and (self._lease.is_over or run in self._takeover.unsettled):
                raise AwayError
            if window:
                await self._link.redis.sadd(owned, run.member)  # before it is there: or it would be nobody's to end
                await self._link.redis.pexpire(owned, 2 * life)
            said = await self._place(
                keys=[run.places, run.kept, run.about, run.log],
                args=[
                    run_id, name, self._max_runs_per_user, held_for(is_lasting=bool(window)), life,
                    info.SerializeToString(), int(window * 1000),
                ],
            )  # fmt: skip
        except AWAY as error:
            if window:
                self._takeover.unsettled[run] = name  # perhaps it is there: then it ends
                raise AwayError from error
            return _nothing  # one of our own
        if said != b"in":
            if window and said == b"full":
                self._scribe.do("SREM", owned, run.member)
            raise TakenError(exists=said == b"exists")
        if window and (self._lease.is_over or name != self.engine):
            raise AwayError  # what is there by the name that we had, others end
        self._lease.held[run] = bool(window)

        def leave() -> None:
            self._lease.held.pop(run, None)
            if not window:  # otherwise its end gives it back, or whoever goes on with it
                self._scribe.do("ZREM", run.places, run_id)
                self._scribe.do("DEL", run.about)
                self._scribe.do("ZREM", run.kept, run_id)

        return leave

    def open(self, work: Work) -> Journal:
        """Begin the journal of a resumable run that has a place. Raises FullError."""
        room = self._journals.room(work.pays)
        run = self._link.keys.run(work.user_id, work.run_id, work.pays)
        tenure = Tenure(run, FIRST_EPOCH, ((FIRST_EPOCH, 0),))
        return SharedJournal(room, tenure, work, self._scribe, lambda: self._owner.lose(work.user_id, work.run_id))

    async def where(self, user_id: str, run_id: str) -> Place | None:
        """Tell where a user's run is. Raises AwayError."""
        run = self._link.keys.run(user_id, run_id)
        try:
            self._lease.check()
            place = _place(*await self._link.redis.hmget(run.about, *PLACED))
            if place and place.is_lasting and not place.info.is_over and await self._is_nobodys(place.engine):
                await self._settle(self._link.keys.run(user_id, run_id, place.info.service).member, place.engine)
                place = _place(*await self._link.redis.hmget(run.about, *PLACED))
        except AWAY as error:
            raise AwayError from error
        return place

    async def everywhere(self, user_id: str) -> Mapping[str, Place]:
        """Tell where a user's runs are, by their ids. Raises AwayError."""
        keys = self._link.keys
        try:
            self._lease.check()
            run_ids = [run_id.decode() for run_id in await self._link.redis.zrange(keys.kept(user_id), 0, -1)]
            pipe = self._link.redis.pipeline(transaction=False)
            for run_id in run_ids:
                pipe.hmget(keys.run(user_id, run_id).about, *PLACED)
            places = [_place(*found) for found in await pipe.execute()]
        except AWAY as error:
            raise AwayError from error
        return {run_id: place for run_id, place in zip(run_ids, places, strict=True) if place}

    def tail(self, user_id: str, run_id: str, place: Place) -> Tail:
        """Read the journal of a run at another engine."""
        return ValkeyTail(self._tails, self._link.keys.run(user_id, run_id), place.bases)

    async def ask(self, engine: str, message: Message) -> Message:
        """Ask another engine, and wait for what it says. Raises AwayError."""
        return await self._bus.ask(engine, message)

    async def adopt(self, user_id: str, run_id: str, message: Message) -> bool:
        """Let a run go on here that an engine had which is gone, or gives it away; False where it can't."""
        run = self._link.keys.run(user_id, run_id, str(message["pays"]))
        try:
            gone = Gone(run, message["from"], message["epoch"])
            return await self._takeover.adopt(gone, is_given=message["is_given"])
        except AWAY:
            return run in self._takeover.unsettled  # then it is perhaps ours, and we see to it

    async def hand_over(self, user_id: str, run_id: str, pays: str) -> None:
        """Let a run go on at another engine that would otherwise end here, if there is one that takes it."""
        run = self._link.keys.run(user_id, run_id, pays)
        try:
            self._lease.check()
            for engine in (await self._takeover.engines())[:-1]:
                if await self._takeover.may_adopt(engine, run):
                    break
            else:
                return
        except AWAY:
            return
        if not await self._owner.abandon(user_id, run_id):
            return
        with suppress(*AWAY):  # then it goes on when our lease is over
            await self._takeover.settle(run.member, self.engine, to=engine, is_given=True)
        self._owner.lose(user_id, run_id)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            for part in (self._scribe, self._tails, self._lease, self._bus):
                group.create_task(part.work())

    def _lapse(self) -> None:
        """Hear that others may have our runs by now."""
        for run, is_lasting in tuple(self._lease.held.items()):
            if is_lasting:
                self._owner.lapse(run.user_id, run.run_id)
        self._takeover.unsettled.clear()  # they are found by the name that we had

    async def _settle(self, member: str, engine: str) -> None:
        await self._takeover.settle(member, engine)

    async def _go_on(self) -> None:
        await self._takeover.go_on()

    async def _is_nobodys(self, engine: str) -> bool:
        """Tell whether an engine is gone, and nobody will look for what it left: it began that when it was given up."""
        known: list[float | None] = await self._link.redis.zmscore(self._link.keys.engines, [engine, f"{engine}!"])
        return known == [None, None]


def _place(engine: bytes | None, info: bytes, bases: bytes, window: bytes) -> Place | None:
    return None if engine is None else Place(engine.decode(), RunInfo.FromString(info), bases.decode(), window != b"0")


def _nothing() -> None:
    pass
