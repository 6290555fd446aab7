"""Server reflection, for whoever is signed in: what can be called is not for strangers."""

from collections.abc import AsyncGenerator, Iterable
from typing import Any, cast

import grpc.aio
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from engine_service.calls.identity import Identity, of_call
from engine_service.calls.refusals import Refusals
from engine_service.calls.status import status_of
from engine_service.runs.refusal import Refusal

SERVICE_NAME = reflection.SERVICE_NAME


class GuardedReflection:
    """The library's servicer, behind our door."""

    def __init__(self, services: Iterable[str], identity: Identity, refusals: Refusals) -> None:
        self._refusals = refusals
        self._servicer = cast("Any", reflection).aio.ReflectionServicer(service_names=services)  # its stubs know no aio
        self._identity = identity

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have a server answer it."""
        cast("Any", reflection_pb2_grpc).add_ServerReflectionServicer_to_server(self, server)

    async def ServerReflectionInfo(  # noqa: N802 - its name in the contract
        self, requests: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncGenerator[Any]:
        """Say what can be called."""
        try:
            await self._identity.caller(*of_call(context))
        except Refusal as refusal:
            self._refusals.tell(refusal)
            async for _ in requests:  # a call that is refused before it was read is told as broken, now and then
                break
            await context.abort_with_status(status_of(refusal))
        async for response in self._servicer.ServerReflectionInfo(requests, context):
            yield response
