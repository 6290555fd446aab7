"""A resumable run: it goes on when its caller is gone, is written down, and is read by one caller at a time."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from runwire.v1 import events_pb2 as pb

from engine_service.runs.admission import Admission
from engine_service.runs.outcome import Verdict
from engine_service.runs.quota import Quota
from engine_service.runs.refusal import gone, resumed, run_elsewhere, too_many
from engine_service.runs.run import Run
from engine_service.stores.store import (
    FullError,
    GoneError,
    Journal,
    Left,
    LostError,
    NotAdoptedError,
    OpenJournal,
)
from engine_service.wire import GRACE, Checkpoint, Work
from engine_service.workers import WorkerError

EXPIRED = pb.AgentCancelled(reason="Its caller was gone for longer than it may be.")

FIRST, MOST = 1024, 64 * 1024
"""Bytes of a caller's first message, and of one at most; each is up to twice the one before. Where connections break
after a few events, some arrive of each; where they hold, there are many in a message."""

MAX_KEPT = 100
"""Runs of one user that are over and can still be read. Beyond it, the oldest is forgotten before its time."""


class Resumable:
    """One resumable run, and what it has said."""

    def __init__(self, run: Run, journal: Journal, window: float, on_expired: Callable[["Resumable"], None]) -> None:
        run.on_stop = self._on_stop
        if run.survives:
            run.on_checkpoint = self._save
        self.user_id, self.run_id = run.work.user_id, run.work.run_id
        self.service, self.pays = run.work.service, run.work.pays
        self.questions = run.questions
        """What its agent asks its user, and what became of that."""
        self.info = run.info
        """Says what there is to know about it."""
        self.is_over = self.is_lost = False
        """Whether it has ended; and whether it is another engine's by now."""
        self._is_forgotten = False
        self.is_saved = run.work.recovery is not None
        """Whether its agent has saved what another engine could go on from."""
        self._is_saving = self._was_saved = False
        self.is_abandoned = False
        """Whether it is to go on elsewhere."""
        self._run: Run | None = run  # until nothing is left of it but this
        self._left = asyncio.Event()
        self._journal = journal
        self._window = window
        self._on_expired = on_expired
        self._reader: asyncio.Timeout | None = None  # the caller's, while there is one
        self._reader_since = 0.0
        self._room: asyncio.Timeout | None = None  # the writer's, while it waits for some
        self._timer: asyncio.TimerHandle | None = None
        self._log = structlog.get_logger().bind(**run.work.labels())

    @property
    def has_reader(self) -> bool:
        """Whether there is a caller."""
        return self._reader is not None

    @property
    def is_full(self) -> bool:
        """Whether it waits for room: as much of it is kept as may be."""
        return self._room is not None

    @property
    def is_left_behind(self) -> bool:
        """Whether it is over, and nobody reads it."""
        return self.is_over and not self.has_reader

    @property
    def is_left(self) -> bool:
        """Whether nothing of the run is left here."""
        return self._left.is_set()

    @property
    def size(self) -> int:
        """How many bytes of it are kept."""
        return self._journal.size

    async def write_down(self, run: Run) -> None:
        """Write the run down to its end. Where there is no room its agent waits, as for a caller who doesn't read."""
        while events := await run.next():
            if run.is_over:
                break
            if not await self._append(events, run):
                events += await run.finish()
                break
        if not run.is_abandoned:
            self._journal.put(events, run.count)

    def leave(self) -> None:
        """Hear that nothing of the run is left but this."""
        self._run = None  # nor what it was asked
        self._left.set()

    async def abandon(self) -> bool:
        """End it here without a word, and wait until nothing of it is left; False where it ends by itself."""
        if self._run and self._run.abandon():
            self.is_abandoned = True
        await self._left.wait()
        return self.is_abandoned

    async def settle(self, left: float | None = None) -> None:
        """Wait until the store has all that it said, and how much time it has left, if that is given."""
        await self._journal.settle(left)

    async def is_struck_out(self) -> None:
        """Wait until what it saved is struck out, if it had saved anything when its end was decided."""
        if self._was_saved:
            await self._journal.settle()

    @property
    def left(self) -> float:
        """How much time it has left."""
        return self._run.left if self._run else 0

    def lose(self) -> None:
        """Hear that it is another engine's by now."""
        if not self.is_lost:
            self.is_lost = True
            self._journal.lose()
            if self._reader:
                self._reader.reschedule(0)

    def end(self) -> None:
        """Let callers see the end."""
        self.is_over = True
        last = self.info()
        self.info = lambda: last
        self._journal.seal(last)
        self.arm_window()

    def forget(self) -> None:
        """Let go of everything. Whoever still reads hears that it is gone."""
        self._is_forgotten = True
        self._disarm_window()
        self._journal.forget()

    @asynccontextmanager
    async def attached(self, after: int) -> AsyncGenerator[Callable[[], Awaitable[bytes]]]:
        """Give out the means to read on from a position. Whoever read until now is sent away.

        Raises a Refusal when that position isn't there, and when another caller takes over.
        """
        most = FIRST

        async def read() -> bytes:
            nonlocal after, most
            acknowledge(after)  # whoever asks for more was given all up to here
            events, after = await self._journal.read(after, most)
            most = min(2 * most, MOST)
            return events

        async with self.visited(after) as acknowledge:
            yield read

    @asynccontextmanager
    async def visited(self, after: int, age: float = 0) -> AsyncGenerator[Callable[[int], None]]:
        """Be read elsewhere, from a position on. Gives out the means to hear how far that is; raises as `attached`.

        `age` is since when that reader is there, in seconds, though it couldn't be told: who came since is the last.
        """
        reader = asyncio.timeout(None)

        def acknowledge(position: int) -> None:
            nonlocal after
            self._journal.acknowledge(position)
            after = position

        try:
            self._journal.check(after)
            async with reader:
                self._take_over(reader, asyncio.get_running_loop().time() - age)
                yield acknowledge
        except LostError:
            raise run_elsewhere() from None
        except GoneError:
            raise gone() from None
        except TimeoutError:
            if not reader.expired():
                raise
            raise (run_elsewhere() if self.is_lost else resumed()) from None
        finally:
            if self._reader is reader:
                self._reader = None
                self.arm_window()
                if not self.is_over:
                    self._log.info("caller gone", at=after)

    def stop(self, verdict: Verdict, grace: float = GRACE) -> None:
        """End it, if it goes on."""
        if self._run:
            self._run.stop(verdict, grace)

    def arm_window(self) -> None:
        """Wait for a caller as long as the window says, unless there is one."""
        self._disarm_window()
        if self._reader is None and not self._is_forgotten:
            self._timer = asyncio.get_running_loop().call_later(self._window, self._expire)

    async def _append(self, events: bytes, run: Run) -> bool:
        """Wait for room, and write; False when the run is told to stop before there is any."""
        try:
            async with asyncio.timeout(0 if run.is_stopped else None) as self._room:
                await self._journal.append(events, run.count)
        except TimeoutError:
            return False
        finally:
            self._room = None
        return True

    def _save(self, checkpoint: Checkpoint, left: float) -> None:
        def on_saved(number: int) -> None:
            if self._run and not self._run.is_stopped:
                self.is_saved = True
                self._run.saved(number)

        self._is_saving = True
        self._journal.save(checkpoint, left, on_saved)

    def _on_stop(self) -> None:
        """Hear that its end is decided: it does not go on elsewhere, unless that is why."""
        if (self.is_saved or self._is_saving) and self._run and not self._run.is_abandoned:
            self.is_saved, self._was_saved = False, True
            self._journal.unsave()
        if self._room:
            self._room.reschedule(0)  # a moment that is past: now

    def _take_over(self, reader: asyncio.Timeout, since: float) -> None:
        if self._reader:
            if self._reader_since > since:
                raise resumed()
            self._reader.reschedule(0)
        self._reader, self._reader_since = reader, since
        self._disarm_window()

    def _disarm_window(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _expire(self) -> None:
        if self.is_over:
            self._on_expired(self)
        else:
            self.stop(EXPIRED)


def _has_reader(resumable: Resumable) -> bool:
    return resumable.has_reader


class Resumables:
    """The resumable runs there are: those that go on, and those that can still be read."""

    def __init__(self, admission: Admission, quota: Quota, open_journal: OpenJournal) -> None:
        self._admission = admission
        self._quota = quota
        self._open_journal = open_journal
        self._users = dict[str, dict[str, Resumable]]()
        self._living = set[asyncio.Task[None]]()

    async def begin(self, run: Run, window: float, seconds: float) -> Resumable:
        """Start a run that lasts. Raises a Refusal or a WorkerError, and then nothing has begun."""
        async with AsyncExitStack() as stack:
            stack.enter_context(self._admission.admit(run))
            await stack.enter_async_context(self._quota.placed(run, window))
            stack.push_async_callback(run.close)
            journal = self._open(run.work)
            try:
                await run.start(seconds)
            except BaseException:
                journal.forget()
                raise
            return self._keep(run, journal, window, stack.pop_all())

    async def adopt(self, run: Run, left: Left) -> None:
        """Let a run go on here that another engine has begun. Raises NotAdoptedError, and then nothing has begun."""
        if self._admission.find(run.work.user_id, run.work.run_id):
            raise NotAdoptedError  # somebody asks for it anew, and is about to hear that it is there
        try:
            async with AsyncExitStack() as stack:
                stack.callback(left.leave)
                stack.enter_context(self._admission.admit(run))
                stack.push_async_callback(run.close)
                await run.start(left.seconds)
                self._keep(run, left.journal, left.window, stack.pop_all()).arm_window()
        except WorkerError as error:
            raise NotAdoptedError from error

    def _keep(self, run: Run, journal: Journal, window: float, admitted: AsyncExitStack) -> Resumable:
        resumable = Resumable(run, journal, window, self._forget)
        self._users.setdefault(run.work.user_id, {})[run.work.run_id] = resumable
        task = asyncio.create_task(self._live(run, resumable, admitted))
        self._living.add(task)
        task.add_done_callback(self._living.discard)
        return resumable

    def find(self, user_id: str, run_id: str) -> Resumable | None:
        """Return a user's resumable run, if there is one. What belongs to another user does not exist."""
        return self._users.get(user_id, {}).get(run_id)

    def lose(self, user_id: str, run_id: str) -> None:
        """Hear that a run is another engine's by now."""
        if resumable := self.find(user_id, run_id):
            if not (resumable.is_abandoned or resumable.is_lost):
                structlog.get_logger().warning("run lost", run_id=run_id, user_id=user_id)
            resumable.lose()
            if resumable.is_over or resumable.is_left:
                self._forget(resumable)

    def saved(self) -> tuple[Resumable, ...]:
        """Return those that could go on elsewhere."""
        return tuple(each for each in self._all() if each.is_saved and not each.is_over)

    def of(self, user_id: str) -> tuple[Resumable, ...]:
        """Return a user's."""
        return tuple(self._users.get(user_id, {}).values())

    async def _live(self, run: Run, resumable: Resumable, admitted: AsyncExitStack) -> None:
        try:
            async with admitted:
                await resumable.write_down(run)
        except LostError:
            self._forget(resumable)
            return
        except Exception:  # noqa: BLE001 - nobody awaits this task: it is logged, and callers hear that it is gone
            structlog.get_logger().exception("resumable failed", **run.work.labels())
            self._forget(resumable)
            return
        finally:
            resumable.leave()
        if run.is_abandoned and not resumable.is_lost:
            return  # whoever wanted that says what becomes of it
        resumable.end()
        if resumable.is_lost:
            self._forget(resumable)
            return
        kept = self._users[resumable.user_id]
        kept[resumable.run_id] = kept.pop(resumable.run_id)  # in the order in which they ended
        theirs = (each for each in kept.values() if each.is_over and each.pays == resumable.pays)
        over = sorted(theirs, key=_has_reader)
        for oldest in over[: max(len(over) - MAX_KEPT, 0)]:
            self._forget(oldest)

    def _open(self, work: Work) -> Journal:
        """Begin a journal. Where there is no room, what absent callers have left behind goes, and nothing else."""
        while True:
            try:
                return self._open_journal(work)
            except FullError as full:
                if not self.make_room(full.user_id):
                    sentence = (
                        "The engine keeps as much of other runs as it can. Try again, or without a resume_window."
                    )
                    raise too_many(sentence, "NO_ROOM_FOR_RESUMABLE_RUNS") from None

    def make_room(self, pays: str) -> bool:
        """Forget the oldest run of somebody's that is over and that nobody reads, or anybody's; False if none is."""
        pays = pays or self._biggest()
        oldest = next((each for each in self._all() if each.pays == pays and each.is_left_behind), None)
        if oldest:
            self._forget(oldest)
        return oldest is not None

    def _all(self) -> Iterator[Resumable]:
        return (each for runs in self._users.values() for each in runs.values())

    def _biggest(self) -> str:
        """Return whose limits count for most, of those who have left something behind."""
        sizes = Counter[str]()
        left = set[str]()
        for each in self._all():
            sizes[each.pays] += each.size
            if each.is_left_behind:
                left.add(each.pays)
        return max(left, key=lambda pays: sizes[pays], default="")

    def _forget(self, resumable: Resumable) -> None:
        resumable.forget()
        runs = self._users.get(resumable.user_id, {})
        if runs.get(resumable.run_id) is resumable:
            del runs[resumable.run_id]
            if not runs:
                del self._users[resumable.user_id]
