"""Journals that other engines write, as they are read here: one connection waits for news of all of them."""

import asyncio
from typing import Any

from engine_service.stores.store import AwayError, GoneError
from engine_service.stores.valkey.journal import END, EVENTS, FIRST
from engine_service.stores.valkey.keys import Run
from engine_service.stores.valkey.link import AWAY, BLOCK, Link, repeat
from engine_service.wire import ends

COUNT = 4
"""Entries that are read of one journal at once."""

Entries = list[tuple[bytes, dict[bytes, Any]]]


class Tails:
    """Waits for what is written, for all who read."""

    def __init__(self, link: Link, engine: str) -> None:
        self._link = link
        self._bell = link.keys.bell(engine)
        self._rung = "0"
        self._waiting = dict[asyncio.Future[None], tuple[str, str]]()
        self._news = asyncio.Event()
        self._is_away = False  # a read waits there

    async def read(self, log: str, after: str) -> Entries:
        """Wait for the entries that follow one. Raises AwayError."""
        while True:
            try:
                found = await self._link.redis.xread({log: after}, count=COUNT)
            except AWAY as error:
                raise AwayError from error
            if found:
                entries: Entries = found[0][1]
                return entries
            await self._wait(log, after)

    async def _wait(self, log: str, after: str) -> None:
        """Wait until there is something behind an entry, or for a while."""
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[news] = log, after
        self._news.set()
        try:
            if self._is_away:  # it is to come back, and wait for us, too
                try:
                    await self._link.redis.xadd(self._bell, {b"b": 1}, maxlen=1, approximate=False)
                except AWAY as error:
                    raise AwayError from error
            await news
        finally:
            del self._waiting[news]

    async def work(self) -> None:
        """Wait, for ever."""
        await repeat(self._once)

    async def _once(self) -> None:
        await self._news.wait()
        if not self._waiting:
            self._news.clear()
            return
        waiting = tuple(self._waiting)
        wanted = {self._bell: self._rung}
        for news in waiting:
            log, after = self._waiting[news]
            wanted[log] = min(wanted.get(log, after), after, key=_place)
        self._is_away = True
        try:
            found = await self._link.waiting.xread(wanted, count=1, block=int(BLOCK * 1000))
        finally:
            self._is_away = False
        came = {name.decode(): entries for name, entries in found}
        if rung := came.pop(self._bell, None):
            self._rung = rung[-1][0].decode()
        for news in waiting:
            if not news.done() and (news not in self._waiting or self._waiting[news][0] in came):
                news.set_result(None)
        await asyncio.sleep(0)  # who goes on reading is waited for again


def _place(number: str) -> tuple[int, ...]:
    return tuple(map(int, number.split("-")))


class ValkeyTail:
    """One journal that another engine writes."""

    def __init__(self, tails: Tails, run: Run, bases: str) -> None:
        self._tails = tails
        self._log = run.log
        self._bases = [tuple(map(int, base.split(":"))) for base in bases.split(",")]
        self._entries: Entries = []
        self._at = ""
        self._is_over = False

    async def read(self, after: int, most: int) -> tuple[bytes, int]:  # noqa: ARG002 - an entry is as large as it is
        """Wait for what follows a position. Raises GoneError, and AwayError."""
        if not self._at:
            epoch = max(epoch for epoch, base in self._bases if base <= after)
            self._at = f"{epoch}-{after}"
        while not self._is_over:
            if not self._entries:
                self._entries = await self._tails.read(self._log, self._at)
            number, fields = self._entries.pop(0)
            self._at = number.decode()
            self._is_over = END in fields
            if events := fields.get(EVENTS):
                return self._cut(after, int(fields[FIRST]), events)
        return b"", after

    def _cut(self, after: int, first: int, events: bytes) -> tuple[bytes, int]:
        """Leave out what was read before."""
        if first > after + 1:
            raise GoneError
        at = list(ends(events, 0))
        skipped = after + 1 - first
        return events[at[skipped - 1] if skipped else 0 :], first + len(at) - 1
