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

from engine_service.calls.identity import Identity, Metadata, of_call
from engine_service.calls.refusals import Refusals
from engine_service.calls.status import status_of
from engine_service.operations.roster import Roster
from engine_service.runs.caller import Caller
from engine_service.runs.refusal import Refusal, forbidden, invalid

SERVICE = pb.DESCRIPTOR.services_by_name["OperationsService"].full_name

MOST_NAMED = 20
"""Runs that are named in one line of the log."""

Context = grpc.aio.ServicerContext[Any, Any]


class Operators:
    """Knows operators from everybody else."""

    def __init__(self, identity: Identity, refusals: Refusals) -> None:
        self.identity = identity
        self._refusals = refusals

    async def check(self, said: Metadata, host: str) -> Caller:
        """Return the operator who calls. Raises a Refusal for everybody else, and tells of it."""
        user_id = ""
        try:
            caller = await self.identity.caller(said, host)
            user_id = caller.user_id
            if not caller.is_operator:
                raise forbidden("You are no operator of this engine.", "NO_OPERATOR")
        except Refusal as refusal:
            self._refusals.tell(refusal, user_id)
            raise
        return caller


class Operating(OperationsServiceServicer):
    """Answers the calls of `OperationsService`."""

    def __init__(self, roster: Roster, operators: Operators) -> None:
        self._roster = roster
        self._operators = operators
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
            stopped = await self._roster.stop(request)
            runs = [*stopped.told, *stopped.uncertain]
            about = {which: getattr(request, which), "runs": runs[:MOST_NAMED], "many": len(runs)}
            if runs:
                self._log.warning("runs stopped by an operator", operator=caller.user_id, **about)
            return pb.StopRunsResponse(run_ids=stopped.told, uncertain=stopped.uncertain)

        stopped: pb.StopRunsResponse = await self._answer(context, stop)
        return stopped

    async def _answer(self, context: Context, do: Callable[[Caller], Awaitable[Any]]) -> Any:
        try:
            return await do(await self._operators.check(*of_call(context)))
        except Refusal as refusal:
            await context.abort_with_status(status_of(refusal))
