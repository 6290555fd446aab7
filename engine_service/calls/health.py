"""How the engine is, for whoever asks: no one need be signed in, so that a stranger may ask, but not without end."""

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer, add_HealthServicer_to_server

from engine_service.calls.identity import host
from engine_service.calls.status import status_of
from engine_service.runs.refusal import Refusal, too_many
from engine_service.runs.tally import Tally

SERVICE_NAME = health.SERVICE_NAME
MAX_WATCHERS, MAX_WATCHERS_OF_HOST = 1024, 64
"""Streams of `Watch` at once, of all and of one address."""
PATIENCE = 10.0
"""Seconds that a watcher may take to hear of a change."""

Context = grpc.aio.ServicerContext[Any, Any]


class Health(HealthServicer):
    """The standard health service. The library's own has no bound, and one watcher who doesn't read holds up all."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = {"", *services}
        self._status: Any = HealthCheckResponse.NOT_SERVING
        self._changed = asyncio.Event()
        self._watchers = Tally()
        self._is_closed = False

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have a server answer it."""
        add_HealthServicer_to_server(self, server)

    @property
    def is_serving(self) -> bool:
        """Whether it takes runs."""
        return bool(self._status == HealthCheckResponse.SERVING)

    def set(self, *, is_serving: bool) -> None:
        """Say how the engine is from now on."""
        self._status = HealthCheckResponse.SERVING if is_serving else HealthCheckResponse.NOT_SERVING
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """End the streams of those who watch: an engine that ends would wait for them."""
        self._is_closed = True
        self.set(is_serving=False)

    async def Check(self, request: HealthCheckRequest, context: Any) -> HealthCheckResponse:  # noqa: N802 - its name in the contract
        """Say how the engine is."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is no such service.")
        return HealthCheckResponse(status=self._status)

    async def Watch(self, request: HealthCheckRequest, context: Any) -> None:  # noqa: N802 - its name in the contract
        """Say how the engine is, and again whenever that changes."""
        await context.send_initial_metadata(())  # a call whose first write is cancelled could not be ended any more
        try:
            peer = host(context)
            self._check(peer)
            with self._watchers.one(peer):
                try:
                    await self._watch(context, is_known=request.service in self._services)
                except TimeoutError:  # it reads nothing, and so it doesn't hear of this: until then it counts
                    refusal = too_many("Nothing was read for too long.", "STALLED")
                    await context.abort_with_status(status_of(refusal))
        except Refusal as refusal:
            await context.abort_with_status(status_of(refusal))

    async def _watch(self, context: Context, *, is_known: bool) -> None:
        said = None
        while True:
            changed = self._changed
            status = self._status if is_known else HealthCheckResponse.SERVICE_UNKNOWN
            if status != said:
                said = status
                async with asyncio.timeout(PATIENCE):
                    await context.write(HealthCheckResponse(status=status))
            if self._is_closed:
                return
            await changed.wait()

    def _check(self, peer: str) -> None:
        """Raise a Refusal when there are as many as may be, of an address or of all."""
        if self._watchers.total >= MAX_WATCHERS or self._watchers[peer] >= MAX_WATCHERS_OF_HOST:
            raise too_many("There are as many who watch as there may be. Ask with Check.", "TOO_MANY_WATCHERS")
