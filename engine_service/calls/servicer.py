"""gRPC to runs: one call of `Run` is one run, and a resumable one goes on in calls of `Resume`."""

import datetime
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf.json_format import ParseDict
from runwire.v1 import engine_pb2 as pb

from engine_service.calls.identity import Identity, of_call
from engine_service.calls.refusals import Refusals
from engine_service.calls.reply import Reply, StalledError
from engine_service.calls.requests import checked_run_id, read, read_answer, trace_of, window_of, work_of
from engine_service.calls.status import status_of
from engine_service.runs.admission import Admission
from engine_service.runs.caller import Caller
from engine_service.runs.peers import Peers
from engine_service.runs.quota import Quota
from engine_service.runs.refusal import Code, Refusal, exists, too_many, unavailable
from engine_service.runs.resumable import Resumable, Resumables
from engine_service.runs.run import Patience, Run
from engine_service.runs.visits import Visit
from engine_service.wire import Description, Work
from engine_service.workers import WorkerError
from runwire.calling import DEVELOPMENT, SHARED

SERVICE = pb.DESCRIPTOR.services_by_name["EngineService"].full_name

BROKEN = "INTERNAL"
NOBODY = Caller("")

Context = grpc.aio.ServicerContext[Any, Any]
Agents = Callable[[], Mapping[str, Description]]


class Servicer:
    """Answers the calls of `EngineService`."""

    def __init__(
        self,
        *,
        agents: Agents,
        identity: Identity,
        admission: Admission,
        resumables: Resumables,
        peers: Peers,
        quota: Quota,
        make_run: Callable[[Work, str], Run],
        refusals: Refusals,
        run_timeout: float,
        heartbeat: float,
        stall_timeout: float,
        max_resume_window: float,
        is_shared: bool,
    ) -> None:
        self._agents = agents
        self._identity = identity
        self._admission = admission
        self._resumables = resumables
        self._peers = peers
        self._quota = quota
        self._make_run = make_run
        self._refusals = refusals
        self._run_timeout = run_timeout
        self._heartbeat = heartbeat
        self._stall_timeout = stall_timeout
        self._about = ((DEVELOPMENT,) if identity.is_development else ()) + ((SHARED,) if is_shared else ())
        self._max_resume_window = max_resume_window
        self._log = structlog.get_logger()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler to give to a gRPC server. What streams is bytes already: it gets no serializer."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Run": stream(self.run, None, None),  # and no deserializer: what comes is looked at before it is parsed
                "Resume": stream(self.resume, pb.ResumeRequest.FromString, None),
                "Answer": unary(self.answer, None, pb.AnswerResponse.SerializeToString),
                "ListRuns": unary(self.list_runs, pb.ListRunsRequest.FromString, pb.ListRunsResponse.SerializeToString),
                "Cancel": unary(self.cancel, pb.CancelRequest.FromString, pb.CancelResponse.SerializeToString),
                "ListAgents": unary(
                    self.list_agents, pb.ListAgentsRequest.FromString, pb.ListAgentsResponse.SerializeToString
                ),
            },
        )

    async def run(self, data: bytes, context: Context) -> None:
        """Run one agent, and stream what happens until the run ends or the caller leaves."""
        async with self._answering(context) as answered:
            # What is cheap is looked at first, and whatever is asked counts: refusing it must cost next to nothing.
            caller = answered.caller = await self._caller(context, "Run")
            await self._quota.take("runs", caller.pays)
            asked = await read(data)
            request = asked.request
            agent = self._check(caller, request)
            window = window_of(request)
            # A run that outlives its call outlives the call's deadline too.
            patience = None if window else _patience(context.time_remaining())
            now = datetime.datetime.now(datetime.UTC)
            work = await work_of(asked, caller.user_id, self._max_resume_window, agent.schema)
            work = replace(
                work,
                service=caller.service,
                claims=caller.claims,
                deadline=now + datetime.timedelta(seconds=self._run_timeout),
                callers_deadline=now + datetime.timedelta(seconds=patience.seconds) if patience else None,
                traceparent=trace_of(context.invocation_metadata() or ()),
                is_lasting=window > 0,
            )
            self._check(caller, request)  # others came while the parameters were looked at
            run = self._make_run(work, agent.isolation)
            reply = self._reply(context, work.run_id)
            if window:
                await self._stream_resumable(
                    reply, await self._resumables.begin(run, window, self._run_timeout), after=0
                )
                return
            async with AsyncExitStack() as stack:
                stack.enter_context(self._admission.admit(run))
                await stack.enter_async_context(self._quota.placed(run))
                run.on_stop = reply.hurry
                try:
                    await run.start(self._run_timeout, patience)
                    await reply.carry(run.next)
                finally:
                    # The caller may be gone: its place is given back only when nothing of the run is left.
                    await run.close()

    async def resume(self, request: pb.ResumeRequest, context: Context) -> None:
        """Join one of the caller's resumable runs again, after the last event that was seen."""
        async with self._answering(context) as answered:
            caller = answered.caller = await self._caller(context, "Resume")
            run_id = checked_run_id(request.run_id)
            await self._quota.take("resumes", caller.pays)
            self._admission.check_resume(caller.pays)
            resumable = await self._peers.find(caller, run_id)
            await self._stream_resumable(self._reply(context, run_id), resumable, request.after_seq)

    async def list_agents(self, _: pb.ListAgentsRequest, context: Context) -> pb.ListAgentsResponse:
        """List the agents there are."""
        async with self._answering(context):
            agents = self._public(await self._caller(context, "ListAgents"))
            await context.send_initial_metadata(self._about)
        return pb.ListAgentsResponse(agents=[_info(agent) for agent in agents.values()])

    async def answer(self, data: bytes, context: Context) -> pb.AnswerResponse:
        """Answer a question that one of the caller's own runs has asked."""
        async with self._answering(context):
            caller = await self._caller(context, "Answer")
            await self._quota.take("calls", caller.pays)
            request = await read_answer(data)
            request.run_id = checked_run_id(request.run_id)
            await self._peers.answer(caller, request)
        return pb.AnswerResponse()

    async def list_runs(self, _: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        """List the caller's own runs: those that go on, and those that can still be read."""
        async with self._answering(context):
            caller = await self._caller(context, "ListRuns")
            await self._quota.take("calls", caller.pays)
            runs = await self._peers.list(caller)
            await context.send_initial_metadata(self._about)
        return pb.ListRunsResponse(runs=sorted(runs, key=_began, reverse=True))

    async def cancel(self, request: pb.CancelRequest, context: Context) -> pb.CancelResponse:
        """Stop one of the caller's own runs. Its stream says how it ended."""
        async with self._answering(context):
            caller = await self._caller(context, "Cancel")
            await self._peers.cancel(caller, checked_run_id(request.run_id))
        return pb.CancelResponse()

    async def _stream_resumable(self, reply: Reply, resumable: Resumable | Visit, after: int) -> None:
        """Stream a resumable run from a position on, until it ends, the caller leaves, or another takes over."""
        # Taking over cancels a write: the call has to be answered before that can be.
        try:
            await reply.begin()
        except BaseException:
            resumable.arm_window()
            raise
        async with resumable.attached(after) as read_on:
            # Where there is nothing to say yet, a heartbeat says that the caller is attached.
            await reply.carry(read_on, patience=0 if after else None)

    async def _caller(self, context: Context, method: str) -> Caller:
        """Return who calls, and have it in the log if that is somebody who acts for another. Raises a Refusal."""
        caller = await self._identity.caller(*of_call(context))
        if caller.service:
            self._log.info("called for a user", acting=caller.service, user_id=caller.user_id, method=method)
        return caller

    def _public(self, caller: Caller) -> Mapping[str, Description]:
        """Return the agents that a caller may run."""
        agents = self._agents().items()
        return {name: agent for name, agent in agents if agent.is_public and caller.may_run(name)}

    def _reply(self, context: Context, run_id: str) -> Reply:
        return Reply(context, run_id, heartbeat=self._heartbeat, stall=self._stall_timeout, about=self._about)

    def _check(self, caller: Caller, request: pb.RunRequest) -> Description:
        """Raise the reason why a run cannot be, as far as that is cheap to know; return what is known of its agent."""
        run_id = request.run_id.lower()
        if self._resumables.find(caller.user_id, run_id):
            raise exists(run_id)
        self._admission.check(caller.user_id, run_id, caller.pays)
        agents = self._public(caller)
        if request.agent not in agents:
            sentence = f"There is no agent named {request.agent[:80]!r}. There are: {', '.join(agents)}."
            raise Refusal(Code.NOT_FOUND, sentence)
        return agents[request.agent]

    @asynccontextmanager
    async def _answering(self, context: Context) -> AsyncGenerator["_Answered"]:
        """Turn what is raised into the status that the caller gets. Nobody outside sees an exception's text."""
        answered = _Answered()
        try:
            yield answered
        except Refusal as refusal:
            self._refusals.tell(refusal, answered.caller.user_id)
            # One who was sent away in mid-stream may read nothing.
            with self._admission.sent_away.one(answered.caller.pays):
                await context.abort_with_status(status_of(refusal))
        except StalledError:
            stalled = too_many("Nothing was read for too long.", "STALLED")
            self._refusals.count(stalled.reason)
            self._log.info("caller reads nothing", user_id=answered.caller.user_id)
            # gRPC ends the call when what was written before is read.
            with self._admission.unread.one(answered.caller.pays):
                await context.abort_with_status(status_of(stalled))
        except WorkerError as error:
            self._log.error("no worker for a run", error=str(error))
            answer = unavailable("The engine cannot start a run right now. Try again.", "NO_PLACE")
            self._refusals.count(answer.reason)
            await context.abort_with_status(status_of(answer))
        except grpc.aio.AbortError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is: told as INTERNAL, and logged
            self._refusals.count(BROKEN)
            incident = uuid.uuid4().hex[:12]
            self._log.exception("call failed", incident=incident)
            sentence = f"Something went wrong inside the engine (incident {incident})."
            await context.abort(grpc.StatusCode.INTERNAL, sentence)


@dataclass
class _Answered:
    """Who is answered, once that is known."""

    caller: Caller = NOBODY


def _patience(remaining: float | None) -> Patience | None:
    """Return how long a caller with a deadline of its own waits.

    It is to hear of that as an event, which has to be said before gRPC ends the call.
    """
    if remaining is None:
        return None
    margin = min(max(0.1 * remaining, 0.05), 1.0)
    return Patience(max(remaining - margin, 0), margin / 2)


def _began(run: pb.RunInfo) -> int:
    return run.started.ToNanoseconds()


def _info(agent: Description) -> pb.AgentInfo:
    about = pb.AgentInfo(name=agent.name, description=agent.text, isolation=agent.isolation)
    if schema := agent.schema:
        ParseDict(schema.document, about.parameters_schema)
    return about
