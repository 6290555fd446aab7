"""What a gone engine has left: runs that saved what they can go on from go on elsewhere, and the others end."""

import datetime
import random
from contextlib import suppress
from typing import Any, NamedTuple

from runwire.v1.engine_pb2 import RunInfo

from engine_service.stores.ledger import Ledger
from engine_service.stores.memory import MemoryJournals, Shelf
from engine_service.stores.store import AwayError, FullError, Left, NotAdoptedError, Owner
from engine_service.stores.valkey.bus import Bus
from engine_service.stores.valkey.journal import END, EVENTS, FIRST, Piece, Scribe, SharedJournal, Tenure
from engine_service.stores.valkey.keys import Run
from engine_service.stores.valkey.lease import Lease, held_for
from engine_service.stores.valkey.link import Link
from engine_service.wire import GRACE, Checkpoint, Recovery, Work, ends, events_in

ATTEMPTS = 3
"""How often a run is started again from one checkpoint."""
NEWEST = 8
"""Entries of a stream that tell how it ends, unless so many heirs died before they said a word."""

FENCE = """
local engine, heir = unpack(redis.call('HMGET', KEYS[1], 'engine', 'heir'))
local here, from, run, most, hold, life = unpack(ARGV)
if not engine or not (engine == from or engine == '' and (heir == from or heir == here)) then return 'taken' end
if life == '0' then
  redis.call('ZREM', KEYS[3], run)
else
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  if not redis.call('ZSCORE', KEYS[3], run) and redis.call('ZCARD', KEYS[3]) >= tonumber(most) then return 'full' end
  redis.call('ZADD', KEYS[3], now + hold, run)
  redis.call('PEXPIRE', KEYS[3], math.max(hold, redis.call('PTTL', KEYS[3])))
  redis.call('ZADD', KEYS[4], now + life, run)
  redis.call('PEXPIRE', KEYS[4], math.max(life, redis.call('PTTL', KEYS[4])))
  redis.call('PEXPIRE', KEYS[1], life)
  redis.call('PEXPIRE', KEYS[2], life)
end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'engine', '', 'heir', here)
redis.call('XADD', KEYS[2], 'NOMKSTREAM', epoch .. '-0', 'f', 0)
return {epoch, redis.call('HMGET', KEYS[1], 'info', 'bases', 'window', 'work', 'trace', 'open', 'noted', 'state', 'at',
  'number', 'left')}
"""
"""Makes a run another engine's, for good or to end it: whoever had it writes nothing any more."""


class Fenced(NamedTuple):
    """A run that is ours by now."""

    run: Run
    epoch: int
    info: RunInfo
    bases: tuple[tuple[int, int], ...]
    window: int
    """Milliseconds."""
    rest: list[bytes | None]
    """What it saved, if anything: `work` and what follows it in FENCE."""


class Takeover:
    """Takes over what others leave, and gives away what we do."""

    def __init__(
        self,
        link: Link,
        engine: str,
        journals: MemoryJournals,
        scribe: Scribe,
        lease: Lease,
        owner: Owner,
        bus: Bus,
        *,
        max_runs_per_user: int,
        longest: float,
    ) -> None:
        self._link = link
        self._engine = engine
        self._journals = journals
        self._scribe = scribe
        self._lease = lease
        self._owner = owner
        self._bus = bus
        self._max_runs_per_user = max_runs_per_user
        self._longest = longest
        self._fence = link.redis.register_script(FENCE)
        self._adopting = set[Run]()

    async def settle(self, member: str, gone: str, *, but: str = "") -> None:
        """Let a run go on somewhere that an engine had which is gone, or end it."""
        run = self._link.keys.listed(member)
        if but:  # nobody died: that counts as no attempt
            await self._link.redis.hincrby(run.about, "saved_in", 1)
        epoch, saved_in = await self._link.redis.hmget(run.about, "epoch", "saved_in")
        if saved_in is not None and int(epoch) - int(saved_in) < ATTEMPTS:
            for engine in await self.engines(but=but):
                if await self._offer(engine, run, gone):
                    return
        await self._end(run, gone)

    async def engines(self, *, but: str = "") -> list[str]:
        """Return the engines that live, in any order."""
        names = [name.decode() for name in await self._link.redis.zrange(self._link.keys.engines, 0, -1)]
        living = [name for name in names if not name.endswith("!") and name != but]
        random.shuffle(living)
        return living

    async def may_adopt(self, engine: str, run: Run) -> bool:
        """Ask an engine whether a run can go on there."""
        with suppress(AwayError):
            return "refusal" not in await self._bus.ask(engine, {"do": "may adopt", **_about(run)})
        return False

    async def adopt(self, user_id: str, run_id: str, gone: str) -> bool:
        """Let a run go on here; False where it can't. One that another engine has taken is no concern of ours."""
        run = self._link.keys.run(user_id, run_id)
        if run in self._adopting:
            return True
        self._adopting.add(run)
        try:
            return await self._adopt(run, gone)
        finally:
            self._adopting.discard(run)

    async def _adopt(self, run: Run, gone: str) -> bool:
        user_id = run.user_id
        if (about := await self._link.redis.hget(run.about, "info")) is None:
            return True
        if not self._owner.may_adopt(RunInfo.FromString(about), user_id):
            return False
        try:
            room = self._journals.room(user_id)
        except FullError:
            return False
        fenced = await self._fenced(run, gone, adopting=True)
        if isinstance(fenced, bytes):
            return fenced == b"taken"
        if (left := await self._left(fenced, room)) is None:
            await self._write_end(fenced)
            return True
        self._lease.held[run] = True
        try:
            await self._owner.adopt(left)
        except NotAdoptedError:
            await self._write_end(fenced)
        else:
            self._scribe.note_soon(Tenure(run, left.work, fenced.epoch, ()), {"engine": self._engine})
        return True

    async def _offer(self, engine: str, run: Run, gone: str) -> bool:
        if engine == self._engine:
            return await self.adopt(run.user_id, run.run_id, gone)
        with suppress(AwayError):
            return "refusal" not in await self._bus.ask(engine, {"do": "adopt", "from": gone, **_about(run)})
        return False

    async def _end(self, run: Run, gone: str) -> None:
        """End a run, unless it had ended."""
        fenced = await self._fenced(run, gone, adopting=False)
        if isinstance(fenced, Fenced):
            await self._write_end(fenced)

    async def _fenced(self, run: Run, gone: str, *, adopting: bool) -> Fenced | bytes:
        """Make a run ours; or say why that can't be."""
        owned = self._link.keys.owned(self._engine)
        await self._link.redis.sadd(owned, run.member)  # first: or it would be nobody's if we died meanwhile
        window = int(await self._link.redis.hget(run.about, "window") or 0)
        life = int(self._longest * 1000) + window if adopting else 0
        await self._link.redis.pexpire(owned, int(self._longest * 2000) + 2 * window)
        said = await self._fence(
            keys=[run.about, run.log, run.places, run.kept],
            args=[
                self._engine, gone, run.run_id, self._max_runs_per_user, held_for(is_lasting=True), life,
            ],
        )  # fmt: skip
        if isinstance(said, bytes):
            await self._link.redis.srem(owned, run.member)
            return said
        epoch, (info, bases, _, *rest) = said
        known = tuple((int(began), int(base)) for began, _, base in (b.partition(b":") for b in bases.split(b",")))
        return Fenced(run, epoch, RunInfo.FromString(info), known, window, rest)

    async def _left(self, fenced: Fenced, room: tuple[tuple[Shelf, ...], int]) -> Left | None:
        """Return what a run can go on from; None where it can't, or is over."""
        run, (asked, trace, opened, noted, state, at, number, left) = fenced.run, fenced.rest
        pieces = _pieces(await self._link.redis.xrange(run.log))
        if not (pieces and asked and state and at and number and left):
            return None
        pushed_out = Ledger(opened or b"", int(noted or 0))
        now = Ledger(opened or b"", int(noted or 0))
        for piece in pieces:
            now.take(events_in(piece.events))
        if now.is_over or not now.is_whole:
            return None
        recovery = Recovery(
            attempt=fenced.epoch,
            last_seq=pieces[-1].last,
            checkpoint=Checkpoint(int(at), int(number), state),
            open=now.open,
            usage=now.usage,
        )
        bases = (*fenced.bases, (fenced.epoch, recovery.last_seq))
        started = fenced.info.started.ToDatetime(datetime.UTC)
        work = Work.again(run.user_id, asked, (trace or b"").decode(), started, recovery)
        tenure = Tenure(run, work, fenced.epoch, bases)
        await self._scribe.note(tenure, {"bases": _written(bases)})
        journal = SharedJournal(
            room, tenure, self._scribe, lambda: self._owner.lose(run.user_id, run.run_id), pushed_out
        )
        journal.restore(pieces)
        seconds = max(float(left), GRACE)
        return Left(work, seconds, fenced.window / 1000, journal, lambda: self._leave(run))

    def _leave(self, run: Run) -> None:
        self._lease.held.pop(run, None)

    async def _write_end(self, fenced: Fenced) -> None:
        """Write how it ends, unless it had ended."""
        run, epoch, known = fenced.run, fenced.epoch, fenced.info
        # First the fence, and then the tail: what comes between them would come after.
        newest = await self._link.redis.xrevrange(run.log, count=NEWEST)
        if not _pieces(newest):
            newest = await self._link.redis.xrevrange(run.log)
        pieces = _pieces(newest[::-1])
        last = known.last_seq = pieces[-1].last if pieces else 0
        is_over = _is_over(newest, pieces)
        pipe = self._link.redis.pipeline(transaction=False)
        if not is_over:
            known.last_seq = last + 1
            lost = {FIRST: last + 1, EVENTS: self._owner.end_of(known)}
            pipe.xadd(run.log, lost, id=f"{epoch}-{last + 1}", nomkstream=True)
        known.is_over = True
        pipe.xadd(run.log, {END: 1}, id=f"{epoch}-{last + 2}", nomkstream=True)
        bases = _written((*fenced.bases, (epoch, last)))
        tenure = Tenure(run, Work(run.run_id, run.user_id, known.agent), epoch, ())
        await self._scribe.note(tenure, {"info": known.SerializeToString(), "bases": bases}, client=pipe)
        pipe.hdel(run.about, "saved_in", "state", "work", "open")
        pipe.zrem(run.places, run.run_id)
        for key in (run.about, run.log):
            pipe.pexpire(key, fenced.window)
        pipe.srem(self._link.keys.owned(self._engine), run.member)
        await pipe.execute()


def _written(bases: tuple[tuple[int, int], ...]) -> str:
    return ",".join(f"{epoch}:{base}" for epoch, base in bases)


def _about(run: Run) -> dict[str, str]:
    return {"user": run.user_id, "run": run.run_id}


def _pieces(entries: list[tuple[bytes, dict[bytes, Any]]]) -> list[Piece]:
    """Return the newest events of a stream that have no gap between them."""
    pieces: list[Piece] = []
    for _, fields in entries:
        if events := fields.get(EVENTS):
            first = int(fields[FIRST])
            if pieces and pieces[-1].last + 1 != first:
                pieces.clear()
            pieces.append(Piece(first, first + sum(1 for _ in ends(events, 0)) - 1, events))
    return pieces


def _is_over(newest: list[tuple[bytes, dict[bytes, Any]]], pieces: list[Piece]) -> bool:
    """Tell whether a stream has its end, or the run's last event."""
    if any(END in fields for _, fields in newest):
        return True
    ledger = Ledger()
    ledger.take(events_in(pieces[-1].events) if pieces else ())
    return ledger.is_over
