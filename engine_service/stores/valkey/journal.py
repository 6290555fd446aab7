"""Journals that are in the store, too: what it doesn't have, nobody reads."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from redis.exceptions import ResponseError
from runwire.v1.engine_pb2 import RunInfo

from engine_service.stores.ledger import Ledger
from engine_service.stores.memory import Mark, MemoryJournal, Room
from engine_service.stores.store import LostError
from engine_service.stores.valkey.keys import Name, Run
from engine_service.stores.valkey.link import Link, repeat
from engine_service.wire import Checkpoint, Work

PIECE = 64 * 1024
"""Bytes of one entry, or a single event."""
FIRST, EVENTS, END = b"f", b"d", b"e"
"""What an entry has: the number of its first event, its events; or that there will be no more."""

FENCED = "equal or smaller"
"""What the store says of an entry whose number is not above all others. Whatever else it says no with will pass."""

NOTE = """
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
"""
"""Writes down what is known of a run. Its owner's alone, as all that follows: 0 for whoever isn't."""

SEAL = """
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'info', ARGV[2])
redis.call('HDEL', KEYS[1], 'state', 'work', 'open')
redis.call('ZREM', KEYS[2], ARGV[3])
return 1
"""
"""Says how a run has ended, and gives its place back."""

DROP = """
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('ZREM', KEYS[4], ARGV[2])
return 1
"""
"""Forgets a run."""


class Piece(NamedTuple):
    """Events as an entry has them."""

    first: int
    last: int
    events: bytes


class Entry(NamedTuple):
    """What is to be written of a journal's stream."""

    number: int
    """The entry's, in its epoch: that of its last event."""
    fields: dict[bytes, Any]
    mark: Mark


class Note(NamedTuple):
    """What is to be written down beside it."""

    fields: dict[str, Any]
    done: Callable[[], None]


class Seal(NamedTuple):
    """How it ends."""

    info: bytes


Step = Entry | Note | Seal


class Tenure(NamedTuple):
    """Since when a run is ours."""

    run: Run
    epoch: int
    bases: tuple[tuple[int, int], ...]
    """With which position each epoch began."""

    def epoch_of(self, seq: int) -> int:
        """Return in which one an event was written."""
        return max(epoch for epoch, base in self.bases if base < seq)


class SharedJournal(MemoryJournal):
    """One run's events, of which only those can be read that are in the store."""

    def __init__(
        self,
        room: Room,
        tenure: Tenure,
        work: Work | None,
        scribe: "Scribe",
        on_lost: Callable[[], None],
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__(*room)
        self.tenure = tenure
        self._work = work  # until the store knows it, if it has to
        self._scribe = scribe
        self._on_lost = on_lost
        self._ledger = ledger or Ledger()  # of what was pushed out: the stream has the rest
        self._pushed = self._written = self._ledger.written()
        self._checkpoint: Note | None = None
        self._saved_at = 0
        self._about: Note | None = None  # what else is to be written down
        self._info = b""
        self._is_lost = self._is_ended = False

    def restore(self, pieces: list[Piece]) -> None:
        """Go on from what is in the stream already."""
        self._start = self._end = self._read = self._sent = Mark(pieces[0].first - 1, 0)
        for piece in pieces:
            super().put(piece.events, piece.last)
        self._show(self._end)

    def put(self, events: bytes, last: int) -> None:
        """Write down event frames for which there has to be room. Raises LostError."""
        if self._is_lost:
            raise LostError
        super().put(events, last)

    def save(self, checkpoint: Checkpoint, left: float, on_saved: Callable[[int], None]) -> None:
        """Keep what the run goes on from, once the store has what was before."""
        what = {"work": self._work.written()} if self._work else {}
        self._saved_at = checkpoint.seq
        self._checkpoint = Note(
            {
                "state": checkpoint.state,
                "at": checkpoint.seq,
                "number": checkpoint.number,
                "left": f"{left:.3f}",
                "tries": 0,
                **what,
            },
            lambda: self._saved(checkpoint.number, on_saved),
        )
        self._scribe.want(self)

    def unsave(self) -> None:
        """Keep nothing of what it would go on from."""
        self._checkpoint = None
        self._write_about({"state": b""})

    async def settle(self, left: float | None = None) -> None:
        """Wait until the store has all, or the run is another's."""
        if left is not None:
            self._write_about({"left": f"{left:.3f}"})
        while (self._about or self._shown != self._end) and not (self._is_lost or self._forgotten):
            self._news.clear()
            await self._news.wait()

    def seal(self, info: RunInfo) -> None:
        """Say that there will be no more."""
        super().seal(info)
        self._work = None
        self._info = info.SerializeToString()
        self._scribe.want(self)

    def check(self, after: int) -> None:
        """Raise GoneError if one cannot read on from here."""
        if self._is_lost:
            raise LostError
        # Who has read what we have not heard of yet has it from the store, by way of another engine.
        if self._forgotten or not self._shown.seq < after <= self._end.seq:
            super().check(after)

    def acknowledge(self, after: int) -> None:
        """Hear that all up to a position was delivered. What is perhaps to be written once more is kept."""
        self.check(after)
        super().acknowledge(min(after, self._shown.seq))

    def forget(self) -> None:
        """Let go of everything, also there."""
        super().forget()
        if not self._is_lost:
            self._scribe.drop(self)

    def lose(self) -> None:
        """Hear that the run is another engine's."""
        if not self._is_lost:
            self._is_lost = True
            self._news.set()
            self._on_lost()

    @property
    def oldest(self) -> str:
        """The id of the oldest event that is kept."""
        seq = self._start.seq + 1
        return f"{self.tenure.epoch_of(seq)}-{seq}"

    @property
    def has_news(self) -> bool:
        """Whether there is anything to be written."""
        return any(True for _ in self.steps())

    def steps(self) -> Iterator[Step]:
        """Return what is to be written next, in its order."""
        if self._is_lost or self._forgotten or self._is_ended:
            return
        if (pushed := self._pushed) != self._written:  # before that is gone from the stream
            yield Note({"open": pushed, "noted": self._ledger.at}, lambda: self._noted(pushed))
        if self._about:
            yield self._about
        end = self._cut(self._shown, self._end, PIECE)
        if end != self._shown:
            data = self._data[self._shown.at - self._start.at : end.at - self._start.at]
            yield Entry(end.seq, {FIRST: self._shown.seq + 1, EVENTS: bytes(data)}, end)
        if self._checkpoint and end.seq >= self._saved_at:
            yield self._checkpoint
        if self._is_sealed and end == self._end:
            yield Entry(end.seq + 1, {END: 1}, end)
            yield Seal(self._info)

    def stored(self, step: Step) -> None:
        """Hear that it is written."""
        match step:
            case Entry():
                self._show(step.mark)
            case Note():
                step.done()
            case Seal():
                self._is_ended = True

    def _saved(self, number: int, on_saved: Callable[[int], None]) -> None:
        if self._checkpoint and self._checkpoint.fields["number"] == number:
            self._checkpoint = None
        self._work = None
        on_saved(number)

    def _write_about(self, fields: dict[str, Any]) -> None:
        about = Note((self._about.fields if self._about else {}) | fields, lambda: self._written_about(about))
        self._about = about
        self._scribe.want(self)

    def _written_about(self, about: Note) -> None:
        if self._about is about:
            self._about = None
        self._news.set()

    def _noted(self, written: bytes) -> None:
        self._written = written

    def _publish(self) -> None:
        self._scribe.want(self)

    def _drop(self, start: Mark) -> None:
        if start != self._start and not self._forgotten:
            dropped = self._data[: start.at - self._start.at]
            if self._ledger.take(dropped, self._start.seq + 1):
                self._pushed = self._ledger.written()
        super()._drop(start)


Do = Callable[[Any], Awaitable[Any]]


class Scribe:
    """Writes journals down: all that have something to be written, in one go."""

    def __init__(self, link: Link, name: Name) -> None:
        self._link = link
        self._name = name
        self._wanted = dict[SharedJournal, None]()
        self._commands = deque[Do]()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._note, self._seal, self._drop = (link.redis.register_script(script) for script in (NOTE, SEAL, DROP))

    def want(self, journal: SharedJournal) -> None:
        """Hear that there is something to be written."""
        self._wanted[journal] = None
        self._wake.set()

    def drop(self, journal: SharedJournal) -> None:
        """Hear that nobody is to read it any more."""
        run, epoch = journal.tenure.run, journal.tenure.epoch
        keys = [run.about, run.log, run.places, run.kept]
        self._do(lambda pipe: self._drop(keys=keys, args=[epoch, run.run_id], client=pipe))
        self.do("SREM", self._link.keys.owned(self._name.now), run.member)

    def do(self, *command: Any) -> None:
        """Hear what else is to be done when there is time."""
        self._do(lambda pipe: pipe.execute_command(*command))

    async def note(self, tenure: Tenure, fields: dict[str, Any], client: Any = None) -> bool:
        """Write down what is known of a run; False when it is another's."""
        flat = [each for pair in fields.items() for each in pair]
        return bool(await self._note(keys=[tenure.run.about], args=[tenure.epoch, *flat], client=client))

    async def work(self) -> None:
        """Write, for ever."""
        await repeat(self._once)

    async def finish(self) -> None:
        """Wait until all is written."""
        while self._wanted or self._commands:
            self._idle.clear()
            await self._idle.wait()

    def _do(self, command: Do) -> None:
        self._commands.append(command)
        self._wake.set()

    async def _once(self) -> None:
        await self._wake.wait()
        try:
            await self._write()
        except BaseException:
            self._wake.set()  # it may have come there all the same: an entry of that number is ours then
            raise

    async def _write(self) -> None:
        self._wake.clear()
        steps = [(journal, step) for journal in self._wanted for step in journal.steps()]
        commands = tuple(self._commands)
        pipe = self._link.redis.pipeline(transaction=False)
        for journal, step in steps:
            await self._put(pipe, journal, step)
        for command in commands:
            await command(pipe)
        results: list[Any] = await pipe.execute(raise_on_error=False) if steps or commands else []
        for (journal, step), result in zip(steps, results, strict=False):
            if await self._is_written(journal, step, result):
                journal.stored(step)
            else:
                journal.lose()
        for _ in commands:
            self._commands.popleft()
        self._wanted = {journal: None for journal in self._wanted if journal.has_news}
        if self._wanted or self._commands:
            self._wake.set()
        else:
            self._idle.set()

    async def _put(self, pipe: Any, journal: SharedJournal, step: Step) -> None:
        tenure = journal.tenure
        run, epoch = tenure.run, tenure.epoch
        match step:
            case Entry(number, fields):
                # What follows a full stop: a key that vanished has forgotten its fence, and is not made anew.
                pipe.xadd(run.log, fields, id=f"{epoch}-{number}", nomkstream=True, minid=journal.oldest)
            case Note(fields):
                await self.note(tenure, fields, client=pipe)
            case Seal(info):
                await self._seal(keys=[run.about, run.places], args=[epoch, info, run.run_id], client=pipe)

    async def _is_written(self, journal: SharedJournal, step: Step, result: Any) -> bool:
        """Tell what it means what the store has said: it takes nothing of another engine's run."""
        if isinstance(result, ResponseError) and FENCED in str(result) and isinstance(step, Entry):
            newest = await self._link.redis.xrevrange(journal.tenure.run.log, count=1)
            epoch, number = map(int, newest[0][0].split(b"-")) if newest else (0, 0)
            return epoch == journal.tenure.epoch and number >= step.number
        if isinstance(result, Exception):
            raise result
        return bool(result)
