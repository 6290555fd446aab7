"""One call that streams a run. One that is silent for longer than the engine promised is taken for lost."""

import asyncio
from typing import Any, Self

import grpc
import grpc.aio
from runwire.v1 import engine_pb2 as pb

from runwire.client.engines import Connection
from runwire.client.errors import RefusedError, closed, is_cancelling, told

SILENCE = 60.0
"""Seconds without a message until a call is taken for lost; longer where heartbeats are rare."""
SLACK = 5.0
"""Seconds that a heartbeat may be late."""

Response = pb.RunResponse | pb.ResumeResponse


class Stream:
    """A call through a connection that is held for it, and its messages."""

    def __init__(self, connection: Connection, call: Any, silence: float | None) -> None:
        self._connection = connection
        self._call = call
        self._silence = silence
        self._patience = SILENCE if silence is None else silence
        self._is_silent = False
        self._first: Response | None = None

    async def begin(self) -> Self:
        """Wait for its first message, or its good end. Raises RefusedError."""
        try:
            self._first = await self._read()
        except BaseException:
            await self.close()
            raise
        if self._first and self._first.HasField("heartbeat") and self._silence is None:
            promised = self._first.heartbeat.ToTimedelta().total_seconds()
            self._patience = max(SILENCE, 2 * promised + SLACK)
        return self

    async def read(self) -> Response | None:
        """Return the next message; None at its good end. Raises RefusedError."""
        first, self._first = self._first, None
        return first or await self._read()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave it."""
        self._call.cancel()
        await self._connection.release()

    async def _read(self) -> Response | None:
        watch = asyncio.get_running_loop().call_later(self._patience, self._give_up)
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise told(error) from error
        except asyncio.CancelledError:
            if is_cancelling():
                raise
            if not self._is_silent:
                raise closed() from None
            raise RefusedError(grpc.StatusCode.UNAVAILABLE, "Nothing came for too long.") from None
        finally:
            watch.cancel()
        return None if response is grpc.aio.EOF else response

    def _give_up(self) -> None:
        """End the call, and so the read. A read that is cancelled by itself would lose a message."""
        self._is_silent = self._connection.is_silent = True
        self._call.cancel()
