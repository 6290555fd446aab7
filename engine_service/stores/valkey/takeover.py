"""What a gone engine has left: runs that saved what they can go on from go on elsewhere, and the others end.

Whoever has fenced a run owns it at once, and sees to it until it runs here, is another's, or has ended.
"""

import asyncio
import random
from typing import Any, NamedTuple

import structlog
from redis.exceptions import ConnectionError as UnreachableError
from runwire.v1.engine_pb2 import RunInfo

from engine_service.stores.ledger import Ledger
from engine_service.stores.memory import MemoryJournals, Room
from engine_service.stores.store import AwayError, FullError, Left, LostError, NotAdoptedError, Owner
from engine_service.stores.valkey.bus import Bus
from engine_service.stores.valkey.journal import END, EVENTS, FIRST, Piece, Scribe, SharedJournal, Tenure
from engine_service.stores.valkey.keys import Name, Run
from engine_service.stores.valkey.lease import Lease, held_for
from engine_service.stores.valkey.link import AWAY, Link
from engine_service.wire import GRACE, Checkpoint, Recovery, Work, ends

ATTEMPTS = 3
"""How often a run is started again from one checkpoint."""
NEWEST = 8
"""Entries of a stream that tell how it ends, unless so many heirs died before they said a word."""

FENCE = """
local here, from, known, run, most, hold, life = unpack(ARGV)
local engine, epoch = unpack(redis.call('HMGET', KEYS[1], 'engine', 'epoch'))
if engine ~= from or epoch ~= known then return engine == here and 'ours' or 'taken' end
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
epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'engine', here)
redis.call('XADD', KEYS[2], 'NOMKSTREAM', epoch .. '-0', 'f', 0)
return {epoch, redis.call('HMGET', KEYS[1], 'info', 'bases', 'window', 'attempt', 'tries', 'work', 'open',
  'noted', 'state', 'at', 'number', 'left')}
"""
"""Makes a run another engine's, to go on with it or to end it: whoever had it writes nothing any more."""


class Gone(NamedTuple):
    """A run as its engine has left it."""

    run: Run
    engine: str
    epoch: str
    """By which it is told from what became of it since."""


class Fenced(NamedTuple):
    """A run that is ours by now."""

    tenure: Tenure
    info: RunInfo
    bases: tuple[tuple[int, int], ...]
    window: int
    """Milliseconds."""
    attempt: int
    tries: int
    """How many attempts there were from its checkpoint."""
    rest: list[bytes | None]
    """What it saved, if anything: `work` and what follows it in FENCE."""


class Takeover:
    """Takes over what others leave, and gives away what we do."""

    def __init__(
        self,
        link: Link,
        name: Name,
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
        self._name = name
        self._journals = journals
        self._scribe = scribe
        self._lease = lease
        self._owner = owner
        self._bus = bus
        self._max_runs_per_user = max_runs_per_user
        self._longest = longest
        self._fence = link.redis.register_script(FENCE)
        self._busy = set[Run]()
        self.unsettled = dict[Run, str]()
        """Runs that are perhaps ours, and neither run here nor have ended: each with by what name we have it."""

    async def go_on(self) -> None:
        """See to what is unsettled. What fails is tried again, and holds up nothing else."""
        runs = [(run, name) for run, name in self.unsettled.items() if run not in self._busy]
        settling = (self.settle(run.member, name) for run, name in runs)
        for said in await asyncio.gather(*settling, return_exceptions=True):
            if isinstance(said, Exception) and not isinstance(said, AWAY):
                structlog.get_logger().error("a run cannot be settled", error=repr(said))

    async def settle(self, member: str, gone: str, *, to: str = "", is_given: bool = False) -> None:
        """Let a run go on somewhere whose engine is gone, or end it; or give it away, if anybody takes it."""
        run = self._link.keys.listed(member)
        if run in self._busy:
            raise UnreachableError("it is being settled")
        epoch, saved, tries = await self._link.redis.hmget(run.about, "epoch", "state", "tries")
        left = Gone(run, gone, (epoch or b"").decode())
        if saved and int(tries or 0) < ATTEMPTS + is_given:
            engines = await self.engines(first=to)
            for engine in engines[:-1] if is_given else engines:  # we are the last
                if await self._offer(engine, left, is_given=is_given):
                    if engine != self._name.now and self.unsettled.get(run) == gone:
                        del self.unsettled[run]
                    return
        if is_given:
            return  # nobody takes it now: somebody will when we are gone
        if saved:
            labels = {"run_id": run.run_id, "user_id": run.user_id}
            structlog.get_logger().warning("run given up", attempts=int(tries or 0), **labels)
        await self._end(left)

    async def engines(self, *, first: str = "") -> list[str]:
        """Return the engines that live, in any order but for the first, and for us, who are the last."""
        names = [name.decode() for name in await self._link.redis.zrange(self._link.keys.engines, 0, -1)]
        others = [name for name in names if not name.endswith("!") and name not in self._name.all]
        random.shuffle(others)
        others.sort(key=first.__ne__)
        return [*others, self._name.now]

    async def may_adopt(self, engine: str, run: Run) -> bool:
        """Ask an engine whether a run can go on there."""
        return await self._asks(engine, {"do": "may adopt", **_about(run)})

    async def adopt(self, gone: Gone, *, is_given: bool) -> bool:
        """Let a run go on here; False where it can't. One that another engine has taken is no concern of ours."""
        run = gone.run
        if run in self._busy:
            return True
        if (info := await self._link.redis.hget(run.about, "info")) is None:
            return True
        if self._lease.is_over or (leave := self._owner.reserve(RunInfo.FromString(info), run.user_id)) is None:
            return False
        self._busy.add(run)
        try:
            room = self._room(run.pays)
            return room is not None and await self._adopt(gone, room, is_given=is_given)
        finally:
            self._busy.discard(run)
            leave()

    def _room(self, pays: str) -> Room | None:
        while True:
            try:
                return self._journals.room(pays)
            except FullError as full:
                if not self._owner.make_room(full.user_id):
                    return None

    async def _adopt(self, gone: Gone, room: Room, *, is_given: bool) -> bool:
        name = self._name.now
        fenced = await self._fenced(gone, adopting=True)
        if isinstance(fenced, bytes):
            return fenced != b"full"
        try:
            left = await self._left(fenced, room, is_given=is_given)
        except LostError:
            self.unsettled.pop(gone.run, None)
            return True
        if left is None:
            await self._write_end(fenced)
        else:
            await self._start(fenced, left, is_ours=name == self._name.now and not self._lease.is_over)
        return True

    async def _start(self, fenced: Fenced, left: Left, *, is_ours: bool) -> None:
        """Start a run, unless others may have it by now. One that is not started is unsettled: others are asked."""
        run, is_started = fenced.tenure.run, False
        self._lease.held[run] = True
        try:
            if is_ours:
                await self._owner.adopt(left)
                is_started = True
                self.unsettled.pop(run, None)
        except NotAdoptedError:
            await self._scribe.note(fenced.tenure, {"attempt": fenced.attempt, "tries": fenced.tries})
        finally:
            if not is_started:
                left.leave()
                left.journal.lose()
                left.journal.forget()

    async def _offer(self, engine: str, gone: Gone, *, is_given: bool) -> bool:
        if engine == self._name.now:
            return await self.adopt(gone, is_given=is_given)
        about = {"from": gone.engine, "epoch": gone.epoch, "is_given": is_given, **_about(gone.run)}
        return await self._asks(engine, {"do": "adopt", **about})

    async def _asks(self, engine: str, message: dict[str, Any]) -> bool:
        try:
            return "refusal" not in await self._bus.ask(engine, message)
        except AwayError:
            return False

    async def _end(self, gone: Gone) -> None:
        """End a run, unless it had ended."""
        self._busy.add(gone.run)
        try:
            fenced = await self._fenced(gone, adopting=False)
            if isinstance(fenced, Fenced):
                await self._write_end(fenced)
        finally:
            self._busy.discard(gone.run)

    async def _fenced(self, gone: Gone, *, adopting: bool) -> Fenced | bytes:
        """Make a run ours; or say why that can't be. Until it is settled we see to it, whatever we hear of it now."""
        if self._lease.is_over:
            raise UnreachableError("others may have our own runs")
        run, name, owned = gone.run, self._name.now, self._link.keys.owned(self._name.now)
        await self._link.redis.sadd(owned, run.member)  # first: or it would be nobody's if we died meanwhile
        window = int(await self._link.redis.hget(run.about, "window") or 0)
        life = int(self._longest * 1000) + window if adopting else 0
        await self._link.redis.pexpire(owned, int(self._longest * 2000) + 2 * window)
        before, self.unsettled[run] = self.unsettled.get(run), name
        hold = held_for(is_lasting=True)
        said = await self._fence(
            keys=[run.about, run.log, run.places, run.kept],
            args=[name, gone.engine, gone.epoch, run.run_id, self._max_runs_per_user, hold, life],
        )
        if isinstance(said, bytes):
            await self._not_fenced(said, run, before)
            return said
        epoch, (info, bases, _, attempt, tries, *rest) = said
        known = tuple((int(began), int(base)) for began, _, base in (b.partition(b":") for b in bases.split(b",")))
        about = RunInfo.FromString(info)
        return Fenced(Tenure(run, epoch, known), about, known, window, int(attempt or 1), int(tries or 0), rest)

    async def _not_fenced(self, said: bytes, run: Run, before: str | None) -> None:
        """See to it no more, unless it is ours all the same: perhaps we were not told."""
        if said == b"ours" and run not in self._lease.held:
            return
        if before is None or said != b"full":
            self.unsettled.pop(run, None)
        else:
            self.unsettled[run] = before
        if said == b"taken":
            await self._link.redis.srem(self._link.keys.owned(self._name.now), run.member)

    async def _left(self, fenced: Fenced, room: Room, *, is_given: bool) -> Left | None:
        """Return what a run can go on from; None where it can't, or is over. Raises LostError."""
        run, (written, opened, noted, state, at, number, left) = fenced.tenure.run, fenced.rest
        pieces = _pieces(await self._link.redis.xrange(run.log))
        if not (pieces and written and state and at and number and left):
            return None
        pushed_out, now = (Ledger(opened or b"", int(noted or 0)) for _ in range(2))
        for piece in pieces:
            now.take(piece.events, piece.first)
        if now.is_over or not now.is_whole:
            return None
        recovery = Recovery(
            attempt=fenced.attempt + 1,
            last_seq=pieces[-1].last,
            checkpoint=Checkpoint(int(at), int(number), state),
            open=now.open,
            usage=now.usage,
        )
        tenure = fenced.tenure._replace(bases=(*fenced.bases, (fenced.tenure.epoch, recovery.last_seq)))
        begun = {"bases": _written(tenure.bases), "attempt": recovery.attempt, "tries": fenced.tries + (not is_given)}
        if not await self._scribe.note(tenure, begun):
            raise LostError
        work = Work.again(run.user_id, written, fenced.info, recovery)
        journal = SharedJournal(
            room, tenure, None, self._scribe, lambda: self._owner.lose(run.user_id, run.run_id), pushed_out
        )
        journal.restore(pieces)
        return Left(work, max(float(left), GRACE), fenced.window / 1000, journal, lambda: self._leave(run))

    def _leave(self, run: Run) -> None:
        self._lease.held.pop(run, None)

    async def _write_end(self, fenced: Fenced) -> None:
        """Write how it ends, unless it had ended."""
        (run, epoch, _), known = fenced.tenure, fenced.info
        # First the fence, and then the tail: what comes between them would come after.
        newest = await self._link.redis.xrevrange(run.log, count=NEWEST)
        if not _pieces(newest):
            newest = await self._link.redis.xrevrange(run.log)
        pieces = _pieces(newest[::-1])
        last = known.last_seq = pieces[-1].last if pieces else 0
        pipe = self._link.redis.pipeline(transaction=False)
        if not _is_over(newest, pieces):
            known.last_seq = last + 1
            lost = {FIRST: last + 1, EVENTS: self._owner.end_of(known)}
            pipe.xadd(run.log, lost, id=f"{epoch}-{last + 1}", nomkstream=True)
        known.is_over = True
        pipe.xadd(run.log, {END: 1}, id=f"{epoch}-{last + 2}", nomkstream=True)
        about = {"info": known.SerializeToString(), "bases": _written((*fenced.bases, (epoch, last)))}
        await self._scribe.note(fenced.tenure, about, client=pipe)
        pipe.hdel(run.about, "state", "work", "open")
        pipe.zrem(run.places, run.run_id)
        for key in (run.about, run.log):
            pipe.pexpire(key, fenced.window)
        pipe.srem(self._link.keys.owned(self._name.now), run.member)
        await pipe.execute()
        self.unsettled.pop(run, None)


def _written(bases: tuple[tuple[int, int], ...]) -> str:
    return ",".join(f"{epoch}:{base}" for epoch, base in bases)


def _about(run: Run) -> dict[str, str]:
    return {"user": run.user_id, "run": run.run_id, "pays": run.pays}


def _pieces(entries: list[tuple[bytes, dict[bytes, Any]]]) -> list[Piece]:
    """Return the newest events of a stream that have no gap between them, each once.

    What was written, and not confirmed, stands there again in a longer entry.
    """
    pieces: list[Piece] = []
    for _, fields in entries:
        if not (events := fields.get(EVENTS)):
            continue
        first, at = int(fields[FIRST]), [0, *ends(events, 0)]
        last = first + len(at) - 2
        known = pieces[-1].last if pieces else first - 1
        if known + 1 < first:
            pieces.clear()
        skipped = max(known + 1 - first, 0)
        if skipped < len(at) - 1:
            pieces.append(Piece(first + skipped, last, events[at[skipped] :]))
    return pieces


def _is_over(newest: list[tuple[bytes, dict[bytes, Any]]], pieces: list[Piece]) -> bool:
    """Tell whether a stream has its end, or the run's last event."""
    if any(END in fields for _, fields in newest):
        return True
    ledger = Ledger(b"", pieces[-1].first - 1 if pieces else 0)
    for piece in pieces[-1:]:
        ledger.take(piece.events, piece.first)
    return ledger.is_over
