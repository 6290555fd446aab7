"""Journals that are in the store, too: what it doesn't have, nobody reads."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from redis.exceptions import ResponseError
from runwire.v1.engine_pb2 import RunInfo

from engine_service.stores.memory import Mark, MemoryJournal, Shelf
from engine_service.stores.store import LostError
from engine_service.stores.valkey.keys import Run
from engine_service.stores.valkey.link import Link, repeat

PIECE = 64 * 1024
"""Bytes of one entry, or a single event."""
FIRST, EVENTS, END = b"f", b"d", b"e"
"""What an entry has: the number of its first event, its events; or that there will be no more."""


class Entry(NamedTuple):
    """What is to be written of a journal next."""

    number: int
    """The entry's, in its epoch: that of its last event."""
    fields: dict[bytes, Any]
    mark: Mark


class SharedJournal(MemoryJournal):
    """One run's events, of which only those can be read that are in the store."""

    def __init__(
        self,
        shelves: tuple[Shelf, ...],
        past: int,
        run: Run,
        epoch: int,
        scribe: "Scribe",
        on_lost: Callable[[], None],
    ) -> None:
        super().__init__(shelves, past)
        self.run = run
        self.epoch = epoch
        self._scribe = scribe
        self._on_lost = on_lost
        self._is_lost = self._is_ended = False

    @property
    def oldest(self) -> int:
        """The number of the oldest event that is kept."""
        return self._start.seq + 1

    def put(self, events: bytes, last: int) -> None:
        """Write down event frames for which there has to be room. Raises LostError."""
        if self._is_lost:
            raise LostError
        super().put(events, last)

    def seal(self, info: RunInfo) -> None:
        """Say that there will be no more."""
        super().seal(info)
        self._scribe.do("HSET", self.run.about, "info", info.SerializeToString())
        self._scribe.want(self)

    def check(self, after: int) -> None:
        """Raise GoneError if one cannot read on from here."""
        if self._is_lost:
            raise LostError
        super().check(after)

    def forget(self) -> None:
        """Let go of everything, also there."""
        super().forget()
        if not self._is_lost:
            self._scribe.drop(self)

    def lose(self) -> None:
        """Hear that the run is another engine's."""
        self._is_lost = True
        self._news.set()
        self._on_lost()

    def next(self) -> Entry | None:
        """Return what is to be written next; None where there is nothing."""
        if self._is_lost or self._forgotten or self._is_ended:
            return None
        end = self._cut(self._shown, self._end, PIECE)
        if end != self._shown:
            data = self._data[self._shown.at - self._start.at : end.at - self._start.at]
            return Entry(end.seq, {FIRST: self._shown.seq + 1, EVENTS: bytes(data)}, end)
        return Entry(end.seq + 1, {END: 1}, end) if self._is_sealed else None

    def stored(self, entry: Entry) -> None:
        """Hear that it is written."""
        self._is_ended = END in entry.fields
        self._show(entry.mark)

    def _publish(self) -> None:
        self._scribe.want(self)


class Scribe:
    """Writes journals down: all that have something to be written, in one go."""

    def __init__(self, link: Link, engine: str) -> None:
        self._link = link
        self._engine = engine
        self._wanted = dict[SharedJournal, None]()
        self._commands = deque[tuple[Any, ...]]()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()

    def want(self, journal: SharedJournal) -> None:
        """Hear that there is something to be written."""
        self._wanted[journal] = None
        self._wake.set()

    def drop(self, journal: SharedJournal) -> None:
        """Hear that nobody is to read it any more."""
        run, kept = journal.run, journal.run.about.rpartition(":run:")
        self.do("DEL", run.about, run.log)
        self.do("ZREM", f"{kept[0]}:kept", kept[2])
        self.do("SREM", self._link.keys.owned(self._engine), run.member)

    def do(self, *command: Any) -> None:
        """Hear what else is to be done when there is time."""
        self._commands.append(command)
        self._wake.set()

    async def work(self) -> None:
        """Write, for ever."""
        await repeat(self._once)

    async def finish(self) -> None:
        """Wait until all is written."""
        while self._wanted or self._commands:
            self._idle.clear()
            await self._idle.wait()

    async def _once(self) -> None:
        await self._wake.wait()
        try:
            await self._write()
        except BaseException:
            self._wake.set()  # it may have come there all the same: an entry of that number is ours then
            raise

    async def _write(self) -> None:
        self._wake.clear()
        entries = [(journal, entry) for journal in self._wanted if (entry := journal.next())]
        commands = tuple(self._commands)
        pipe = self._link.redis.pipeline(transaction=False)
        for journal, entry in entries:
            oldest = f"{journal.epoch}-{journal.oldest}"
            number = f"{journal.epoch}-{entry.number}"
            pipe.xadd(journal.run.log, entry.fields, id=number, nomkstream=True, minid=oldest)
        for command in commands:
            pipe.execute_command(*command)
        results: list[Any] = await pipe.execute(raise_on_error=False) if entries or commands else []
        for (journal, entry), result in zip(entries, results, strict=False):
            if await self._is_written(journal, entry, result):
                journal.stored(entry)
            else:
                journal.lose()
        for _ in commands:
            self._commands.popleft()
        self._wanted = {journal: None for journal in self._wanted if journal.next()}
        if self._wanted or self._commands:
            self._wake.set()
        else:
            self._idle.set()

    async def _is_written(self, journal: SharedJournal, entry: Entry, result: Any) -> bool:
        """Tell what it means what the store has said: it takes no entry of another engine's run."""
        if not isinstance(result, ResponseError):
            if isinstance(result, Exception):
                raise result
            return result is not None
        newest = await self._link.redis.xrevrange(journal.run.log, count=1)
        return bool(newest) and newest[0][0] == f"{journal.epoch}-{entry.number}".encode()
