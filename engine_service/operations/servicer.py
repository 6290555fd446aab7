"""gRPC for operators, on an address of its own."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import structlog
from runwire.operations.v1 import operations_pb2 as pb
from runwire.operations.v1.operations_pb2_grpc import (
    OperationsServiceServicer,
    add_OperationsServiceServicer_to_server,
)

from engine_service.calls.identity import Identity, of_call
from engine_service.calls.status import status_of
from engine_service.operations.roster import Roster
from engine_service.runs.caller import Caller
from engine_service.runs.refusal import Refusal, forbidden, invalid

SERVICE = pb.DESCRIPTOR.services_by_name["OperationsService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]


async def operator(identity: Identity, said: Any, host: str) -> Caller:
    """Return the operator who calls. Raises a Refusal for everybody else."""
    caller = await identity.caller(said, host)
    if not caller.is_operator:
        structlog.get_logger().warning("no operator", user_id=caller.user_id)
        raise forbidden("You are no operator of this engine.", "NO_OPERATOR")
    return caller


class Operating(OperationsServiceServicer):
    """Answers the calls of `OperationsService`."""

    def __init__(self, roster: Roster, identity: Identity) -> None:
        self._roster = roster
        self._identity = identity
        self._log = structlog.get_logger()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have a server answer them."""
        add_OperationsServiceServicer_to_server(self, server)

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:  # noqa: N802
        """List the runs that go on."""
        listed: pb.ListRunsResponse = await self._answer(context, lambda _: self._roster.list(request))
        return listed

    async def StopRuns(self, request: pb.StopRunsRequest, context: Context) -> pb.StopRunsResponse:  # noqa: N802
        """Stop runs."""

        async def stop(caller: Caller) -> pb.StopRunsResponse:
            which = request.WhichOneof("which")
            if not (which and getattr(request, which)):
                raise invalid({"which": "must be a run, a user or an agent"})
            stopped = self._roster.stop(request)
            about = {which: getattr(request, which), "runs": stopped[:MOST_NAMED], "many": len(stopped)}
            self._log.warning("runs stopped by an operator", operator=caller.user_id, **about)
            return pb.StopRunsResponse(run_ids=stopped)

        stopped: pb.StopRunsResponse = await self._answer(context, stop)
        return stopped

    async def _answer(self, context: Context, do: Callable[[Caller], Awaitable[Any]]) -> Any:
        try:
            return await do(await operator(self._identity, *of_call(context)))
        except Refusal as refusal:
            await context.abort_with_status(status_of(refusal))


MOST_NAMED = 20
"""Runs that are named in one line of the log."""
