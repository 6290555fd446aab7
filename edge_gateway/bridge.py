"""One socket is one stream."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

import grpc
import grpc.aio
import structlog
from runwire.v1.engine_pb2 import RunResponse
from runwire.v1.gateway_pb2 import AnswerFrame, ClientFrame
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from edge_gateway import answers, handshake, statuses
from edge_gateway.close_codes import Closing, closing
from edge_gateway.engines import CHECK, Engine, Engines, Metadata, Stream, UnreachableError
from edge_gateway.frames import CODECS, Codec, FrameError
from edge_gateway.pacing import Pacer, StalledError
from runwire.calling import DEVELOPMENT, FULL, NOWHERE

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_FOUND = grpc.StatusCode.NOT_FOUND
LOST = "Your run was lost."
INVALID = grpc.StatusCode.INVALID_ARGUMENT
STALLED = closing(grpc.StatusCode.RESOURCE_EXHAUSTED, "Nothing was read for too long.")
SILENCE = 60.0
"""Seconds that an engine may be silent, at least: longer if the heartbeat that it promised is rarer."""
LATER, LATER_BYTES = 64, 256 * 1024
"""Frames after the first that may wait to be obeyed, and their bytes all together."""
TOO_MUCH = closing(grpc.StatusCode.RESOURCE_EXHAUSTED, "That is too much at once.")
BROKEN = 1006
"""The close code of a socket that ended without one."""
PATIENCE = 10.0
"""Seconds that a browser has to answer a close frame, or to read up to it."""


class LostError(Exception):
    """No engine has the run that was read before."""


class NotForPublicError(Exception):
    """The engine believes everybody, and who came is perhaps anybody. The message says why."""


Guard = Callable[[ServerConnection], str | None]
"""Says why a socket must not reach an engine that believes everybody, if it mustn't."""


class Watcher(Protocol):
    """Hears of sockets, for an operator's figures."""

    def opened(self) -> None:
        """Hear that one was opened."""
        ...

    def closed(self, code: int, seconds: float) -> None:
        """Hear how one ended, and how long it was open."""
        ...

    def stalled(self) -> None:
        """Hear that a browser took nothing for too long."""
        ...


class Trace(Protocol):
    """Hears of one socket, for whoever follows what it sets off."""

    traceparent: str
    """What the engine hears that it is part of."""

    def ended(self, code: int) -> None:
        """Hear with which code it was closed."""
        ...


class Untold:
    """The trace of a socket that nobody follows: what its browser says is told on."""

    def __init__(self, traceparent: str) -> None:
        self.traceparent = traceparent

    def ended(self, code: int) -> None:
        """Tell nobody."""


Follow = Callable[[str], Trace]
"""Follows a socket that is part of a trace, as W3C writes it, or of none."""


class Bridge:
    """Carries sockets. Keeps nothing from one to the next but how many there are."""

    def __init__(
        self,
        engines: Engines,
        guard: Guard,
        watcher: Watcher,
        follow: Follow = Untold,
        *,
        open_timeout: float,
        stall_timeout: float,
    ) -> None:
        self._engines = engines
        self._follow = follow
        self._watcher = watcher
        self._guard = guard
        self._open_timeout = open_timeout
        self._stall_timeout = stall_timeout
        self._codecs = {codec.subprotocol: codec for codec in CODECS}
        self.sockets = 0
        """How many are open."""

    async def carry(self, socket: ServerConnection) -> None:
        """Serve a socket from its first frame to its end."""
        self.sockets += 1
        self._watcher.opened()
        began = asyncio.get_running_loop().time()
        codec = self._codecs[socket.subprotocol or CODECS[0].subprotocol]
        trace: Trace | None = None
        try:
            first = await self._first(socket, codec)
            trace = self._follow(handshake.traceparent(first, socket))
            first.traceparent = trace.traceparent
            if first.HasField("answer"):
                await self._answer(socket, codec, first)
                return
            # A run goes to the engine whose turn it is, and to the next if that takes none. One that is resumed is at
            # one of them, or at any where they share their runs.
            engines = self._engines.each() if first.HasField("resume") else _given(await self._engines.in_turn())
            ride = Ride(socket, codec, engines, self._engines.all, first, self._stall_timeout, self._guard)
            ride.on_stall = self._watcher.stalled
            await ride.go()
        except FrameError as error:
            await dismiss(socket, closing(INVALID, str(error)))
        except TimeoutError:
            await dismiss(socket, closing(grpc.StatusCode.DEADLINE_EXCEEDED, "Nothing was asked for in time."))
        except UnreachableError:
            await dismiss(socket, closing(grpc.StatusCode.UNAVAILABLE))
        except ConnectionClosed:
            pass  # the browser left: that is no error
        finally:
            self.sockets -= 1
            code = socket.close_code or BROKEN
            self._watcher.closed(code, asyncio.get_running_loop().time() - began)
            if trace:
                trace.ended(code)

    async def _first(self, socket: ServerConnection, codec: Codec) -> ClientFrame:
        """Wait for the frame that opens the run. Raises TimeoutError and FrameError."""
        async with asyncio.timeout(self._open_timeout):
            frame = await codec.decode(await socket.recv())
        if frame.HasField("run"):
            frame.run.run_id = frame.run.run_id or str(uuid.uuid4())  # known here too, so that it can be cancelled
        elif not (frame.HasField("resume") or frame.HasField("answer")):
            raise FrameError("The first frame must be run, resume or answer.")
        return frame

    async def _answer(self, socket: ServerConnection, codec: Codec, frame: ClientFrame) -> None:
        """Bring an answer to a run that this socket does not join."""
        said = handshake.metadata(frame, socket)
        engines = await self._engines.all()
        if why := await refusal(self._guard, socket, engines, said):
            await dismiss(socket, closing(grpc.StatusCode.FAILED_PRECONDITION, why))
            return
        await socket.send(codec.encode(await answers.bring(frame.answer, engines, said)), text=codec.is_text)
        await dismiss(socket, closing(grpc.StatusCode.OK))


class Ride:
    """One socket's way with its stream: whoever ends first closes the socket, and closing it ends the other."""

    def __init__(
        self,
        socket: ServerConnection,
        codec: Codec,
        engines: AsyncGenerator[Engine],
        all_engines: Callable[[], Awaitable[Sequence[Engine]]],
        first: ClientFrame,
        stall_timeout: float,
        guard: Guard,
    ) -> None:
        self.on_stall: Callable[[], None] = _nothing
        """Called when its browser has taken nothing for too long."""
        self._guard = guard
        self._log = structlog.get_logger()
        self._socket = socket
        self._codec = codec
        self._engines = engines
        self._all_engines = all_engines
        self._engine: Engine | None = None  # that we ask now
        self._is_for_us = False  # whether it is known that we may
        self._stream: Stream | None = None
        self._first = first
        self._metadata = handshake.metadata(first, socket)
        self._later = dict[asyncio.Task[None], int]()  # frames that are to be obeyed, and their sizes
        self._obeying = asyncio.Lock()  # one after the other, in the order in which they came
        self._is_cancelling = False
        self._run_id = first.run.run_id or first.resume.run_id
        self._begun = asyncio.Event()
        self._is_lasting = first.HasField("resume") or first.run.HasField("resume_window")
        self._pacer = Pacer(socket, stall_timeout, is_text=codec.is_text, is_lasting=self._is_lasting)
        self._patience = SILENCE
        self._watching: asyncio.TimerHandle | None = None
        self._is_silent = False
        self._is_refused = False
        self._end: Closing | None = None  # as the stream ended

    async def go(self) -> None:
        """Carry the stream until the socket is closed.

        A child task forwards the stream and then closes the socket; here the socket is read until it is closed, and
        then the child is cancelled. Reading must go on all the time: a socket that isn't read doesn't notice that its
        browser left.
        """
        forwarding = asyncio.create_task(self._forward())
        try:
            async for frame in self._socket:
                self._take(frame)
        finally:
            self._hang_up()
            # It ends by itself. Cancelled inside a read, grpc.aio would never free the message that has just come.
            await asyncio.wait((forwarding,), timeout=CHECK)
            forwarding.cancel()
            self._begun.set()  # a browser may say cancel and leave: that run is to end, even if it could be resumed
            await self._obeyed()
            for task in self._later:
                task.cancel()
            await asyncio.wait((forwarding, *self._later))

    def _hang_up(self) -> None:
        """End the stream. Cancelling a task inside `socket.send` would not."""
        if self._stream:
            self._stream.cancel()

    def _take(self, frame: str | bytes) -> None:
        """Take in a later frame. After the first that is refused, all are."""
        if self._is_refused:
            return
        self._is_refused = len(self._later) >= LATER or sum(self._later.values()) + len(frame) > LATER_BYTES
        obeying = close(self._socket, TOO_MUCH) if self._is_refused else self._obey(frame)
        task = asyncio.create_task(obeying)
        self._later[task] = len(frame)
        task.add_done_callback(self._later.pop)

    async def _obeyed(self) -> None:
        """Wait until what later frames say is done, but not for long."""
        if self._later:
            await asyncio.wait(tuple(self._later), timeout=CHECK)

    async def _obey(self, frame: str | bytes) -> None:
        """Do what a later frame says. One that cannot be understood ends the socket; an answer never does."""
        try:
            async with self._obeying:
                end = await self._do(await self._codec.decode(frame))
        except ConnectionClosed:
            return
        except FrameError as error:
            end = closing(INVALID, str(error))
        except grpc.aio.AioRpcError as error:
            end = closing(statuses.code(error), statuses.sentence(error))
        except Exception:  # noqa: BLE001 - a cancel that got lost must not look as if it had worked
            end = self._broken()
        if end:
            self._hang_up()
            await close(self._socket, end)

    async def _do(self, later: ClientFrame) -> Closing | None:
        """Do what a later frame says, and return how the socket is to end, if it is. Raises FrameError, and others."""
        # The first frame's token may have expired: a run outlives it.
        said = handshake.metadata(later, self._socket) if later.access_token else self._metadata
        # What the engine doesn't know yet can be neither cancelled nor answered; an engine that hangs can be left.
        with suppress(TimeoutError):
            async with asyncio.timeout(CHECK if later.HasField("leave") else None):
                await self._begun.wait()
        if later.HasField("answer"):
            await self._answer(later.answer, said)
        elif later.HasField("cancel"):
            await self._cancel(said)
        elif later.HasField("leave"):
            return self._end or closing(grpc.StatusCode.OK)
        else:
            raise FrameError("Only answer, cancel and leave can follow the first frame.")
        return None

    async def _cancel(self, said: Metadata) -> None:
        if self._engine and self._is_for_us and not self._is_cancelling:  # one is enough
            self._is_cancelling = True
            await self._engine.cancel(self._run_id, said)

    async def _answer(self, frame: AnswerFrame, said: Metadata) -> None:
        """Bring an answer to this socket's run, or to another of the same user's, and tell what became of it."""
        engines: Sequence[Engine] = [self._engine] if self._engine and self._is_for_us else []
        if frame.run_id and frame.run_id != self._run_id:
            engines = await self._all_engines()
            if await refusal(self._guard, self._socket, engines, said):
                engines = []
        frame.run_id = frame.run_id or self._run_id
        await self._pacer.send(self._codec.encode(await answers.bring(frame, engines, said)))

    async def _forward(self) -> None:
        """Send what the engine streams, then close the socket as the stream ended."""
        try:
            await self._carry()
            end = closing(grpc.StatusCode.OK)
        except grpc.aio.AioRpcError as error:
            end = closing(statuses.code(error), statuses.sentence(error))
        except UnreachableError:
            end = closing(grpc.StatusCode.UNAVAILABLE)
        except LostError:
            end = closing(NOT_FOUND, LOST)
        except NotForPublicError as refused:
            self._hang_up()
            end = closing(grpc.StatusCode.FAILED_PRECONDITION, str(refused))
        except StalledError:
            self._hang_up()
            self.on_stall()
            end = STALLED
        except ConnectionClosed:
            return
        except asyncio.CancelledError:
            if not self._is_silent:
                raise
            end = closing(UNAVAILABLE, "The engine does not answer. Try again in a moment.")
        except Exception:  # noqa: BLE001 - whatever it is: nobody is to wait for what will not come
            end = self._broken()
        self._end = end
        self._begun.set()
        await self._obeyed()  # the answer that ended the run is told of, too
        await close(self._socket, end)

    def _broken(self) -> Closing:
        incident = uuid.uuid4().hex[:12]
        self._log.exception("a socket's stream broke", incident=incident)
        self._hang_up()
        return closing(grpc.StatusCode.INTERNAL, f"Something went wrong inside the gateway (incident {incident}).")

    async def _carry(self) -> None:
        """Send one frame a message, of the first engine that begins. The others are asked only before that.

        Raises AioRpcError, and UnreachableError when the run may be at an engine that cannot be asked.
        """
        refusal: Exception = UnreachableError()
        unreached: Exception | None = None
        async for engine in self._engines:
            try:
                with engine.held():
                    self._is_for_us = self._guard(self._socket) is None
                    self._engine, self._stream = engine, engine.open(self._first, self._metadata)
                    await self._read(self._stream)
            except UnreachableError as error:
                unreached = error
            except grpc.aio.AioRpcError as error:
                if self._begun.is_set() or not self._may_be_elsewhere(error):
                    raise
                if statuses.reason(error) == NOWHERE:
                    refusal, unreached = error, None
                    break
                if statuses.code(error) is UNAVAILABLE:
                    unreached = error
                else:
                    refusal = error
            else:
                return
        raise self._outcome(refusal, unreached)

    async def _read(self, stream: Stream) -> None:
        """Send what an engine streams. One that is silent for longer than it promised hangs: it is left."""
        self._watch(SILENCE)
        try:
            await self._answered(stream)
            self._is_for_us = True
            async for response in stream:
                if not self._begun.is_set():
                    self._begun.set()
                    promised = RunResponse.FromString(response).heartbeat.ToTimedelta().total_seconds()
                    self._patience = max(2 * promised + CHECK, SILENCE)
                self._unwatch()
                await self._pacer.send(self._codec.encode(response))
                self._watch(self._patience)
        finally:
            self._unwatch()

    def _watch(self, seconds: float) -> None:
        self._watching = asyncio.get_running_loop().call_later(seconds, self._give_up)

    def _unwatch(self) -> None:
        if self._watching:
            self._watching.cancel()

    def _give_up(self) -> None:
        """Leave an engine that says nothing. A read must not be cancelled by itself: grpc.aio would lose a message."""
        self._is_silent = True
        self._hang_up()

    def _may_be_elsewhere(self, error: grpc.aio.AioRpcError) -> bool:
        """Tell whether it makes sense to ask another engine."""
        if self._first.HasField("resume"):
            return statuses.code(error) in {UNAVAILABLE, NOT_FOUND}
        if statuses.reason(error) in FULL:
            return True
        # One that was lost while it was asked may have begun a run that outlives this call: a browser looks for that.
        return statuses.code(error) is UNAVAILABLE and (not self._is_lasting or statuses.spoke(error))

    def _outcome(self, refusal: Exception, unreached: Exception | None) -> Exception:
        """Say what it means that every engine was asked. A run to resume may be at one that does not answer."""
        if not self._first.HasField("resume"):
            return unreached if isinstance(refusal, UnreachableError) and unreached else refusal
        if unreached is None and isinstance(refusal, grpc.aio.AioRpcError) and self._first.resume.after_seq:
            return LostError()
        return unreached or refusal

    async def _answered(self, stream: Stream) -> None:
        """Wait until an engine has begun to answer. Raises UnreachableError, and NotForPublicError."""
        try:
            async with asyncio.timeout(CHECK if self._first.HasField("resume") else None):
                about = await stream.initial_metadata()
        except TimeoutError:
            stream.cancel()
            raise UnreachableError from None
        if DEVELOPMENT in tuple(about or ()) and (why := self._guard(self._socket)):
            raise NotForPublicError(why)


def _nothing() -> None:
    pass


async def _given(engines: Sequence[Engine]) -> AsyncGenerator[Engine]:
    for engine in engines:
        yield engine


async def refusal(guard: Guard, socket: ServerConnection, engines: Sequence[Engine], said: Metadata) -> str | None:
    """Say why a socket must not call engines, if it mustn't: one of them believes everybody.

    Asked before anything is changed there; what a stream begins with says it too late for that.
    """
    if (why := guard(socket)) is None:
        return None
    for engine in engines:
        call = engine.list_agents(said)
        about = tuple(await call.initial_metadata() or ())
        if DEVELOPMENT in about or await call.code() not in {grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED}:
            return why
    return None


async def dismiss(socket: ServerConnection, end: Closing) -> None:
    """Close a socket that nobody reads: what still comes is read here, or the answer could not be seen behind it."""
    closing_it = asyncio.create_task(close(socket, end))
    with suppress(ConnectionClosed):
        async for _ in socket:
            pass
    await closing_it


async def close(socket: ServerConnection, end: Closing) -> None:
    """Close a socket that is read elsewhere. A browser that doesn't read its end is left without it."""
    try:
        async with asyncio.timeout(PATIENCE):
            await socket.close(*end)
    except TimeoutError:
        socket.transport.abort()
