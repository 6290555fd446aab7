"""A resumable run: it goes on when its caller is gone, is written down, and is read by one caller at a time."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import structlog
from runwire.v1 import events_pb2 as pb

from engine_service.admission import Admission
from engine_service.journal import GoneError, Journal, OpenJournal
from engine_service.refusal import Refusal
from engine_service.run import Run

EXPIRED = pb.AgentCancelled(reason="Its caller was gone for longer than it may be.")

FIRST, MOST = 1024, 64 * 1024
"""Bytes of a caller's first message, and of one at most; each is up to twice the one before. Where connections break
after a few events, some arrive of each; where they hold, there are many in a message."""

MAX_KEPT = 100
"""Runs of one user that are over and can still be read. Beyond it, the oldest is forgotten before its time."""


class Recording:
    """One resumable run, and what it has said."""

    def __init__(self, run: Run, journal: Journal, window: float, on_expired: Callable[[], None]) -> None:
        run.on_stop = self._hurry
        self.is_over = False
        self._run = run
        self._journal = journal
        self._window = window
        self._on_expired = on_expired
        self._seat: asyncio.Timeout | None = None  # the caller's, while there is one
        self._room: asyncio.Timeout | None = None  # the writer's, while it waits for some
        self._timer: asyncio.TimerHandle | None = None
        self._log = structlog.get_logger().bind(**run.work.labels())

    async def write_down(self) -> None:
        """Write the run down to its end. Where there is no room its agent waits, as for a caller who doesn't read."""
        while events := await self._run.next():
            if self._run.is_over:
                break
            if not await self._append(events):
                events += await self._run.finish()
                break
        self._journal.put(events, self._run.count)

    def end(self) -> None:
        """Let callers see the end: nothing of the run is left but this."""
        self.is_over = True
        self._journal.seal()
        self.wait()

    def forget(self) -> None:
        """Let go of everything. Whoever still reads hears that it is gone."""
        self._stop_waiting()
        self._journal.forget()

    @asynccontextmanager
    async def attached(self, after: int) -> AsyncGenerator[Callable[[], Awaitable[bytes]]]:
        """Give out the means to read on from a position. Whoever read until now is sent away.

        Raises a Refusal when that position isn't there, and when another caller takes over.
        """
        seat = asyncio.timeout(None)

        most = FIRST

        async def read() -> bytes:
            nonlocal after, most
            events, after = await self._journal.read(after, most)
            most = min(2 * most, MOST)
            return events

        try:
            self._journal.check(after)
            async with seat:
                self._sit_down(seat)
                yield read
        except GoneError:
            sentence = "That part of the run is not there: not yet, or no longer."
            raise Refusal(grpc.StatusCode.OUT_OF_RANGE, sentence) from None
        except TimeoutError:
            if not seat.expired():
                raise
            raise Refusal(grpc.StatusCode.ABORTED, "The run goes on elsewhere: it was resumed.") from None
        finally:
            if self._seat is seat:
                self._seat = None
                self.wait()
                self._log.info("caller gone", at=after)

    def wait(self) -> None:
        """Wait for a caller as long as the window says, unless there is one."""
        self._stop_waiting()
        if self._seat is None:
            self._timer = asyncio.get_running_loop().call_later(self._window, self._expire)

    async def _append(self, events: bytes) -> bool:
        """Wait for room, and write; False when the run is told to stop before there is any."""
        try:
            async with asyncio.timeout(0 if self._run.is_stopped else None) as self._room:
                await self._journal.append(events, self._run.count)
        except TimeoutError:
            return False
        finally:
            self._room = None
        return True

    def _hurry(self) -> None:
        if self._room:
            self._room.reschedule(0)  # a moment that is past: now

    def _sit_down(self, seat: asyncio.Timeout) -> None:
        if self._seat:
            self._seat.reschedule(0)
        self._seat = seat
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _expire(self) -> None:
        if self.is_over:
            self._on_expired()
        else:
            self._run.stop(EXPIRED)


class Recordings:
    """The resumable runs there are: those that go on, and those that can still be read."""

    def __init__(self, admission: Admission, open_journal: OpenJournal) -> None:
        self._admission = admission
        self._open_journal = open_journal
        self._users = dict[str, dict[str, Recording]]()
        self._living = set[asyncio.Task[None]]()

    async def begin(self, run: Run, window: float, seconds: float) -> Recording:
        """Start a run that lasts. Raises a Refusal or a PlaceError, and then nothing has begun."""
        async with AsyncExitStack() as stack:
            stack.enter_context(self._admission.admit(run))
            stack.push_async_callback(run.close)
            await run.start(seconds)
            user_id, run_id = run.work.user_id, run.work.run_id
            journal = self._open_journal(user_id, run_id)
            recording = Recording(run, journal, window, lambda: self._forget(user_id, run_id))
            recording.wait()
            self._users.setdefault(user_id, {})[run_id] = recording
            task = asyncio.create_task(self._live(user_id, run_id, recording, stack.pop_all()))
            self._living.add(task)
            task.add_done_callback(self._living.discard)
        return recording

    def find(self, user_id: str, run_id: str) -> Recording | None:
        """Return a user's resumable run, if there is one. What belongs to another user does not exist."""
        return self._users.get(user_id, {}).get(run_id)

    async def _live(self, user_id: str, run_id: str, recording: Recording, run: AsyncExitStack) -> None:
        try:
            async with run:
                await recording.write_down()
        except Exception:  # noqa: BLE001 - nobody awaits this task: it is logged, and callers hear that it is gone
            structlog.get_logger().exception("recording failed", run_id=run_id, user_id=user_id)
            self._forget(user_id, run_id)
            return
        recording.end()
        over = [each for each, kept in self._users[user_id].items() if kept.is_over]
        for oldest in over[:-MAX_KEPT]:
            self._forget(user_id, oldest)

    def _forget(self, user_id: str, run_id: str) -> None:
        runs = self._users[user_id]
        runs.pop(run_id).forget()
        if not runs:
            del self._users[user_id]
