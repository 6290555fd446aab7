"""Runs that are read at another engine than they are at: ours there, and others' here."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from engine_service.runs.refusal import Code, Refusal, engine_away, gone, packed, run_elsewhere, unpacked
from engine_service.runs.resumable import Resumable
from engine_service.stores.store import AwayError, GoneError, Message, Place, Store

BEAT = 1.0
"""Seconds between two times that an engine hears that a run of its is read elsewhere."""
SILENCE = 5.0
"""Seconds after which it is no longer, when nothing was heard."""
STEP = 64 * 1024
"""Bytes after which it hears of that at once: it may be what its agent waits for."""

Read = Callable[[], Awaitable[bytes]]


class Guests:
    """Whoever reads our runs at other engines."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._guests = dict[str, Guest]()

    async def attach(self, resumable: Resumable, message: Message) -> None:
        """Have one attached. Raises a Refusal."""
        reader: str = message["reader"]
        guest = self._guests.get(reader)
        if guest and guest.reads is resumable:  # it was asked for twice: our answer came too late
            guest.hear(message["after"])
            return
        guest = Guest(self._store, message["engine"], reader, resumable, self._forget)
        self._guests[reader] = guest
        await guest.attach(message["after"], message["age"])

    def _forget(self, guest: "Guest", reader: str) -> None:
        if self._guests.get(reader) is guest:
            del self._guests[reader]

    def hear(self, message: Message) -> None:
        """Hear how far one is. Raises a Refusal when it is none any more."""
        if (guest := self._guests.get(message["reader"])) is None:
            raise gone()
        guest.hear(message["after"])

    def detach(self, message: Message) -> None:
        """Hear that one is gone."""
        if guest := self._guests.get(message["reader"]):
            guest.end()


class Guest:
    """Whoever reads a run of ours at another engine."""

    def __init__(
        self,
        store: Store,
        engine: str,
        reader: str,
        resumable: Resumable,
        on_end: "Callable[[Guest, str], None]",
    ) -> None:
        self._reader = reader
        self.reads = resumable
        self._on_end = on_end
        self._store = store
        self._engine = engine
        self._acknowledge: Callable[[int], None] | None = None
        self._silence = asyncio.timeout(SILENCE)
        self._task: asyncio.Task[None] | None = None

    async def attach(self, after: int, age: float) -> None:
        """Have it attached. Raises a Refusal."""
        attached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._stay(after, age, attached))
        await attached

    def hear(self, after: int) -> None:
        """Hear how far it is. Raises a Refusal when the run is elsewhere."""
        if self._acknowledge:
            self._silence.reschedule(asyncio.get_running_loop().time() + SILENCE)
            if self.reads.is_lost:
                raise run_elsewhere()
            with suppress(GoneError):
                self._acknowledge(after)

    def end(self) -> None:
        """Hear that it is gone."""
        if self._task:
            self._task.cancel()

    async def _stay(self, after: int, age: float, attached: asyncio.Future[None]) -> None:
        try:
            async with self.reads.visited(after, age) as self._acknowledge:
                attached.set_result(None)
                async with self._silence:
                    await asyncio.get_running_loop().create_future()
        except Refusal as refusal:
            if not attached.done():
                attached.set_exception(refusal)
                return
            if refusal.code is Code.UNAVAILABLE:
                return  # the run is elsewhere by now, and so is what its reader asks next
            away = {"do": "send away", "reader": self._reader, "refusal": packed(refusal)}
            with suppress(AwayError):
                await self._store.ask(self._engine, away)
        except TimeoutError:
            pass  # the other engine is gone, or cannot be heard
        finally:
            self._on_end(self, self._reader)


class Visit:
    """A run of another engine, as it is read here."""

    def __init__(self, store: Store, visits: "dict[str, Visit]", user_id: str, run_id: str, place: Place) -> None:
        self._store = store
        self._visits = visits
        self._whose = user_id, run_id
        self._place = place
        self._tail = store.tail(user_id, run_id, place)
        self._began = asyncio.get_running_loop().time()
        self._refusal: Refusal | None = None
        self._reader = asyncio.timeout(None)
        self._is_attached = False
        self._leaving: asyncio.Task[Message] | None = None
        self._at = 0
        self._progress = asyncio.Event()

    def arm_window(self) -> None:
        """Do nothing: its engine waits for its caller."""

    def send_away(self, refusal: Refusal) -> None:
        """Hear that another takes over, or why it cannot be read here any more."""
        self._refusal = refusal
        with suppress(RuntimeError):  # it is not there yet, or on its way out
            self._reader.reschedule(0)

    @asynccontextmanager
    async def attached(self, after: int) -> AsyncGenerator[Read]:
        """Give out the means to read on from a position. Raises a Refusal, as it would there."""
        reader = uuid.uuid4().hex
        user_id, run_id = self._whose
        about = {"user": user_id, "run": run_id, "reader": reader, "engine": self._store.engine}
        self._at, told = after, 0
        reading: asyncio.Task[tuple[bytes, int]] | None = None

        async def read() -> bytes:
            nonlocal told, reading
            # Whoever gives up waiting finds it where it was: a client of the store may keep a cancellation to itself.
            reading = reading or asyncio.create_task(self._tail.read(self._at, STEP))
            await asyncio.wait((reading,))
            done, reading = reading, None
            try:
                events, self._at = done.result()
            except GoneError:
                raise gone() from None
            except AwayError:
                raise engine_away() from None
            told += len(events)
            if told >= STEP:
                told = 0
                self._progress.set()
            return events

        self._visits[reader] = self
        keeping: asyncio.Task[None] | None = None
        try:
            await self._attach(about)
            keeping = asyncio.create_task(self._keep(about))
            async with self._reader:
                self._check()
                yield read
        except TimeoutError:
            if self._refusal is None:
                raise
            raise self._refusal from None
        finally:
            del self._visits[reader]
            if reading:
                reading.cancel()
            if keeping:
                keeping.cancel()
            if self._is_attached:
                self._leaving = asyncio.create_task(self._say({**about, "do": "detach"}))

    def _check(self) -> None:
        """Raise the Refusal that was heard before there was anybody to hear it."""
        if self._refusal:
            raise self._refusal

    async def _attach(self, about: Message) -> None:
        """Tell its engine that it is read, if that can be told. Raises a Refusal."""
        info = self._place.info
        if info.is_over and self._at > info.last_seq:
            raise gone()
        age = asyncio.get_running_loop().time() - self._began
        try:
            attach = {**about, "do": "attach", "after": self._at, "age": age}
            refused(await self._store.ask(self._place.engine, attach))
        except AwayError:
            return  # what it wrote can be read all the same
        except Refusal as refusal:
            if refusal.code is Code.UNAVAILABLE:
                return  # it is about to go on there
            raise
        self._is_attached = True

    async def _keep(self, about: Message) -> None:
        """Tell its engine how far it is read, all the time; where it isn't told, tell it anew, or the next one."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT):
                    await self._progress.wait()
            self._progress.clear()
            said = await self._say({**about, "do": "read", "after": self._at}) if self._is_attached else {"refusal": ""}
            if "refusal" in said:
                self._is_attached = False
                await self._look(about)

    async def _look(self, about: Message) -> None:
        """Look where it is by now."""
        try:
            if (place := await self._store.where(*self._whose)) is None:
                raise gone()
            self._place = place
            await self._attach(about)
        except AwayError:
            pass  # the next look tells
        except Refusal as refusal:
            if refusal.code in {Code.OUT_OF_RANGE, Code.ABORTED}:  # or it is being taken over
                self.send_away(refusal)

    async def _say(self, message: Message) -> Message:
        try:
            return await self._store.ask(self._place.engine, message)
        except AwayError:
            return {"refusal": ""}


async def ask(store: Store, place: Place, message: Message) -> None:
    """Have a run's engine do something. Raises a Refusal."""
    try:
        refused(await store.ask(place.engine, message))
    except AwayError:
        raise engine_away() from None


def refused(said: Message) -> None:
    """Raise the Refusal that another engine has said, if it is one."""
    if "refusal" in said:
        raise unpacked(said["refusal"])
