"""One run, as its caller sees it: its events, across all the connections that it takes."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import grpc
from runwire.v1 import engine_pb2 as pb

from runwire.calling import FULL, NOWHERE
from runwire.client import events, requests
from runwire.client.engines import Engine, Engines, is_elsewhere, worst
from runwire.client.errors import EndError, LostError, RefusedError
from runwire.client.events import AgentCompleted, Event
from runwire.client.position import Next, Position
from runwire.client.requests import Verdict
from runwire.client.stream import Stream

log = logging.getLogger(__name__)


class Run:
    """One run: iterate it for its events. It begins when they are first asked for.

    Whoever stops iterating leaves it: by `break`, or by being cancelled. Without a `resume_window` that ends it; with
    one it goes on for so long, and iterating it once more joins it again.
    """

    def __init__(self, engines: Engines, asked: pb.RunRequest, position: Position, silence: float | None) -> None:
        self._engines = engines
        self._asked = asked
        self._position = position
        self._silence = silence
        self._engine: Engine | None = None  # where it was last
        self._asked_at: Engine | None = None  # which may have begun it, or be about to, without our hearing of it
        self._is_stopped = False  # an engine has heard that it is cancelled
        self._woken = asyncio.Event()

    @property
    def run_id(self) -> str:
        """The run's id; empty until it is known."""
        return self._position.run_id

    @property
    def seq(self) -> int:
        """The position of the last event that was given."""
        return self._position.seq

    async def answer(
        self, request_id: str, content: Mapping[str, Any] | None = None, *, outcome: Verdict = "accepted"
    ) -> None:
        """Answer one of its questions. Said twice, it is taken once. Raises RefusedError."""
        await self._engines.ask("Answer", requests.answer(self.run_id, request_id, content, outcome))

    async def cancel(self) -> None:
        """Stop it. It still ends with its terminal event, or doesn't begin. Raises RefusedError."""
        self._position.is_wanted = False
        self._woken.set()
        if not self._position.is_there:
            return
        try:
            await self._engines.ask("Cancel", pb.CancelRequest(run_id=self.run_id))
        except RefusedError as refused:
            if refused.code is not grpc.StatusCode.NOT_FOUND:
                raise
            self._is_stopped = self._position.begun  # and is over; otherwise it may be about to begin
        else:
            self._is_stopped = True

    async def result(self) -> AgentCompleted:
        """Read it to its end, and return what it completed with. Raises EndError when it failed, or was cancelled."""
        end = None
        async for event in self:
            end = event
        if not isinstance(end, AgentCompleted):
            raise EndError(end)
        return end

    async def __aiter__(self) -> AsyncGenerator[Event]:
        """Give its events. Raises RefusedError when it can't begin, and LostError when no more can be known of it."""
        async with aclosing(self.batches()) as batches:
            async for batch in batches:
                for event in self.given(batch):
                    yield event

    def given(self, batch: Iterable[Event]) -> Iterator[Event]:
        """Give events, and know how far."""
        for event in batch:
            self._position.seq = event.seq
            yield event

    async def batches(self) -> AsyncGenerator[list[Event]]:
        """Give its events as they come, those that came together in a list, to be `given`."""
        after = Next.AGAIN
        while after is Next.AGAIN and not self._position.is_dropped:
            try:
                async with await self._open() as stream:
                    while response := await stream.read():
                        self._position.heard(response.run_id)
                        await self._keep_stopped()
                        if batch := [events.event(each) for each in response.events]:
                            yield batch
                            if batch[-1].is_end:
                                return
            except RefusedError as refused:
                if (after := await self._after(refused)) is Next.RAISE:
                    if self._position.begun:
                        raise LostError.of(refused) from refused
                    raise
            else:
                if (after := await self._after(None)) is Next.RAISE:
                    raise LostError(grpc.StatusCode.DATA_LOSS, "The stream ended, and the run had not.")

    async def _after(self, ended: RefusedError | None) -> Next:
        """Say what comes after a connection, when it is time for it."""
        after = self._position.after(ended, asyncio.get_running_loop().time())
        if after is not Next.WAIT or ended is None:
            return after
        log.info("run %s is to be joined again after event %d: %s", self.run_id, self.seq, ended)
        vain, until = self._position.vain, self._position.patience
        is_time = await self._engines.retries.pause(vain, ended.retry_after, until, self._woken)
        return Next.AGAIN if is_time else Next.RAISE

    async def _keep_stopped(self) -> None:
        """Tell an engine that it is cancelled, if that was said while there was none to tell."""
        if self._is_stopped or self._position.is_wanted:
            return
        with suppress(RefusedError):  # the next message is the next occasion
            await self.cancel()

    async def _open(self) -> Stream:
        """Open a stream at the first engine that has the run, or begins it. Raises RefusedError."""
        resuming = self._position.connect()
        refusals = list[RefusedError]()
        try:
            for engine in self._where(resuming=resuming):
                try:
                    stream = await (self._resumed(engine) if resuming else self._begun(engine))
                except RefusedError as refused:
                    refusals.append(refused)
                    if refused.is_certain and (not resuming or refused.reason == NOWHERE):
                        self._asked_at = None
                    if not (is_elsewhere(refused) if resuming else self._may_begin_elsewhere(refused)):
                        raise
                else:
                    self._engine, self._asked_at = engine, None
                    return stream
            raise worst(refusals)
        finally:
            refusals.clear()  # an error that is held by a frame of its own outlives its use, and its connection

    def _where(self, *, resuming: bool) -> list[Engine]:
        """Return the engines to ask. What one may be about to begin is begun nowhere else: it would be there twice."""
        if self._asked_at and not resuming:
            return [self._asked_at]
        return self._engines.in_turn(first=self._engine)

    async def _begun(self, engine: Engine) -> Stream:
        metadata = await self._engines.metadata()
        connection = await engine.reach()
        self._position.ask()
        self._asked_at = engine if self._position.window else None
        return await Stream(connection, connection.stub.Run(self._asked, metadata=metadata), self._silence).begin()

    async def _resumed(self, engine: Engine) -> Stream:
        metadata = await self._engines.metadata()
        request = pb.ResumeRequest(run_id=self.run_id, after_seq=self.seq)
        connection = await engine.reach()
        return await Stream(connection, connection.stub.Resume(request, metadata=metadata), self._silence).begin()

    def _may_begin_elsewhere(self, refused: RefusedError) -> bool:
        """Tell whether another engine may be asked for the run. One that was lost may have begun what outlives it."""
        if refused.code is grpc.StatusCode.UNAVAILABLE:
            return bool(refused.is_certain or not self._position.window)
        return refused.reason in FULL
