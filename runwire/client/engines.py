"""The engines that a client knows: one channel for each address that it was given, taken in turn."""

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

import grpc
import grpc.aio
from runwire.v1.engine_pb2_grpc import EngineServiceStub

from runwire import calling
from runwire.calling import ACTS_FOR, ACTS_FOR_BINARY, FULL, NOWHERE, REACH, SHARED
from runwire.client.errors import RefusedError, closed, is_cancelling, told
from runwire.client.retries import LONGEST_PAUSE, Retries

if TYPE_CHECKING:
    from runwire.v1.engine_pb2_grpc import EngineServiceAsyncStub

Token = str | Callable[[], str | Awaitable[str]]
Metadata = tuple[tuple[str, str | bytes], ...]

PATIENCE = 10.0
"""Seconds that an engine has for a short answer."""
TRIES = 6
"""Times that something is asked until it is given up."""
OPTIONS = (
    *calling.OPTIONS,
    ("grpc.lb_policy_name", "round_robin"),  # among the addresses of one name
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection
)


class Connection:
    """A channel. One that is silent takes no more calls, and is closed when those that it has are over."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None) -> None:
        secure, plain = grpc.aio.secure_channel, grpc.aio.insecure_channel
        self.channel = secure(address, credentials, OPTIONS) if credentials else plain(address, OPTIONS)
        self.stub: EngineServiceAsyncStub = EngineServiceStub(self.channel)
        self.is_silent = False
        self._calls = 0

    @property
    def is_ready(self) -> bool:
        """Whether there is a connection. If not, one is begun."""
        return self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    def hold(self) -> None:
        """Begin a call."""
        self._calls += 1

    async def release(self) -> None:
        """Be done with a call."""
        self._calls -= 1
        if self.is_silent and not self._calls:
            await self.channel.close()


class Engine:
    """One address."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None) -> None:
        self._address = address
        self._credentials = credentials
        self._connection = Connection(address, credentials)
        self._silent = WeakSet[Connection]()
        self._is_closed = False

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection. If not, one is begun."""
        return not self._is_closed and self._current().is_ready

    async def reach(self) -> Connection:
        """Wait for a connection, but not for long, and hold it for a call. Raises RefusedError: nothing was sent."""
        try:
            async with asyncio.timeout(REACH):
                while not (connection := self._current()).is_ready:
                    await connection.channel.wait_for_state_change(connection.channel.get_state())
        except TimeoutError:
            sentence = f"The engine at {self._address} cannot be reached."
            raise RefusedError(grpc.StatusCode.UNAVAILABLE, sentence, is_certain=True) from None
        except grpc.aio.UsageError:  # it was closed meanwhile
            raise closed() from None
        connection.hold()
        return connection

    async def close(self) -> None:
        """End every call."""
        self._is_closed = True
        for connection in (self._connection, *self._silent):
            await connection.channel.close()

    def _current(self) -> Connection:
        """Return what calls go through: another one if that was silent, and would be for as long as TCP hopes."""
        if self._is_closed:
            raise closed()
        if self._connection.is_silent:
            self._silent.add(self._connection)
            self._connection = Connection(self._address, self._credentials)
        return self._connection


class Engines:
    """All of them."""

    def __init__(
        self, addresses: Sequence[str], credentials: grpc.ChannelCredentials | None, token: Token | None
    ) -> None:
        self._engines = [Engine(address, credentials) for address in addresses]
        self._token = token
        self._turn = random.randrange(len(self._engines))  # noqa: S311 - clients don't all begin with the same
        self._user = ""
        self.retries = Retries()

    def acting_for(self, user: str) -> Self:
        """Return the same engines, to be called for a user."""
        if not user:
            raise ValueError("whom to act for has to be said")
        acting = copy(self)
        acting._user = user  # noqa: SLF001 - our own kind
        return acting

    async def close(self) -> None:
        """End every call."""
        await asyncio.gather(*(engine.close() for engine in self._engines))

    def in_turn(self, first: Engine | None = None) -> list[Engine]:
        """Return the engines to ask, in this order: those that are connected, and of them that one."""
        self._turn += 1
        after = self._turn % len(self._engines)
        rotated = self._engines[after:] + self._engines[:after]
        return sorted(rotated, key=lambda each: (not each.is_connected, each is not first))

    async def metadata(self) -> Metadata:
        """Say who calls. A token that is a function is asked each time: one that was given before may have expired."""
        token = self._token() if callable(self._token) else self._token
        if inspect.isawaitable(token):
            token = await token
        token = (token or "").strip()
        if not (token.isascii() and token.isprintable()):
            raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, "The token has characters that cannot be sent.")
        who = (("authorization", f"Bearer {token}"),) if token else ()
        if not self._user:
            return who
        is_plain = self._user.isascii() and self._user.isprintable()
        return (*who, (ACTS_FOR, self._user) if is_plain else (ACTS_FOR_BINARY, self._user.encode()))

    async def ask(self, method: str, request: Any, *, everywhere: bool = False) -> list[Any]:
        """Ask one that has an answer, or all, as often as that makes sense. Raises RefusedError."""
        attempt = 0
        while True:
            try:
                return await self._ask(method, request, everywhere=everywhere)
            except RefusedError as refused:
                attempt += 1
                until = asyncio.get_running_loop().time() + LONGEST_PAUSE
                if attempt == TRIES or not refused.retry or refused.code is grpc.StatusCode.ABORTED:
                    raise
                if not await self.retries.pause(attempt, refused.retry_after, until):
                    raise

    async def _ask(self, method: str, request: Any, *, everywhere: bool) -> list[Any]:
        answers, refusals = list[Any](), list[RefusedError]()
        try:
            for engine in self.in_turn():
                try:
                    answer, about = await self._ask_one(engine, method, request)
                except RefusedError as refused:
                    if not is_elsewhere(refused):
                        raise
                    refusals.append(refused)
                else:
                    answers.append(answer)
                    if not everywhere or SHARED in about:
                        return answers[-1:]
            if not answers:
                raise worst(refusals)
            return answers
        finally:
            refusals.clear()  # an error that is held by a frame of its own outlives its use, and its connection

    async def _ask_one(self, engine: Engine, method: str, request: Any) -> tuple[Any, Sequence[Any]]:
        metadata = await self.metadata()
        connection = await engine.reach()
        try:
            call = getattr(connection.stub, method)(request, metadata=metadata, timeout=PATIENCE)
            return await call, tuple(await call.initial_metadata() or ())
        except grpc.aio.AioRpcError as error:
            connection.is_silent |= error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            raise told(error) from error
        except asyncio.CancelledError:
            if is_cancelling():
                raise
            raise closed() from None
        finally:
            await connection.release()


def is_elsewhere(refused: RefusedError) -> bool:
    """Tell whether another engine may have what this one has not."""
    if refused.code is grpc.StatusCode.NOT_FOUND:
        return refused.reason != NOWHERE
    return refused.code is grpc.StatusCode.UNAVAILABLE or refused.reason in FULL


def worst(refusals: Sequence[RefusedError]) -> RefusedError:
    """Say what it means that all were asked: what one does not have may be at another that does not answer."""
    return next((each for each in refusals if each.retry), refusals[-1])
