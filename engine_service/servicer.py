"""gRPC to runs: one call of `Run` is one run, and a resumable one goes on in calls of `Resume`."""

import asyncio
import datetime
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import structlog
from runwire.v1 import engine_pb2 as pb

from engine_service.admission import Admission
from engine_service.agent import Work
from engine_service.events import head
from engine_service.identity import Identity
from engine_service.isolation import GRACE, PlaceError
from engine_service.rates import Rates
from engine_service.recording import Recording, Recordings
from engine_service.refusal import Refusal, exists, too_many, unavailable
from engine_service.requests import checked_run_id, trace_of, window_of, work_of
from engine_service.run import CANCELLED, Run

SERVICE = pb.DESCRIPTOR.services_by_name["EngineService"].full_name

Context = grpc.aio.ServicerContext[Any, Any]
Agents = Callable[[], Mapping[str, Mapping[str, str]]]


class Servicer:
    """Answers the calls of `EngineService`."""

    def __init__(
        self,
        *,
        agents: Agents,
        identity: Identity,
        admission: Admission,
        recordings: Recordings,
        resumes: Rates,
        make_run: Callable[[Work, str], Run],
        run_timeout: float,
        heartbeat: float,
        max_resume_window: float,
    ) -> None:
        self._agents = agents
        self._identity = identity
        self._admission = admission
        self._recordings = recordings
        self._resumes = resumes
        self._make_run = make_run
        self._run_timeout = run_timeout
        self._heartbeat = heartbeat
        self._max_resume_window = max_resume_window
        self._log = structlog.get_logger()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler to give to a gRPC server. What streams is bytes already: it gets no serializer."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Run": stream(self.run, pb.RunRequest.FromString, None),
                "Resume": stream(self.resume, pb.ResumeRequest.FromString, None),
                "Cancel": unary(self.cancel, pb.CancelRequest.FromString, pb.CancelResponse.SerializeToString),
                "ListAgents": unary(
                    self.list_agents, pb.ListAgentsRequest.FromString, pb.ListAgentsResponse.SerializeToString
                ),
            },
        )

    async def run(self, request: pb.RunRequest, context: Context) -> None:
        """Run one agent, and stream what happens until the run ends or the caller leaves."""
        async with self._answering(context):
            metadata = context.invocation_metadata() or ()
            user_id = self._identity.user(metadata)
            window = window_of(request)
            # A run that outlives its call outlives the call's deadline too.
            timeout, grace = self._time(None if window else context.time_remaining())
            deadline = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=timeout)
            work = work_of(request, user_id, deadline, trace_of(metadata), self._max_resume_window)
            run = self._make_run(work, self._isolation(work.agent))
            if self._recordings.find(user_id, work.run_id):
                raise exists(work.run_id)
            if window:
                await self._attend(context, await self._recordings.begin(run, window, timeout), work.run_id, after=0)
                return
            with self._admission.admit(run):
                try:
                    await run.start(timeout, grace)
                    await self._stream(context, work.run_id, run.next)
                finally:
                    # The caller may be gone: its place is given back only when nothing of the run is left.
                    await run.close()

    async def resume(self, request: pb.ResumeRequest, context: Context) -> None:
        """Join one of the caller's resumable runs again, after the last event that was seen."""
        async with self._answering(context):
            user_id = self._identity.user(context.invocation_metadata() or ())
            run_id = checked_run_id(request.run_id)
            if wait := self._resumes.take(user_id):
                sentence = "You have resumed runs as often as one may in a minute. Try again in a moment."
                raise too_many(sentence, "TOO_MANY_RESUMES_PER_MINUTE", wait)
            recording = self._recordings.find(user_id, run_id)
            if recording is None:
                raise _no_such_run()
            await self._attend(context, recording, run_id, request.after_seq)

    async def list_agents(self, _: pb.ListAgentsRequest, context: Context) -> pb.ListAgentsResponse:
        """List the agents there are."""
        async with self._answering(context):
            self._identity.user(context.invocation_metadata() or ())
        return pb.ListAgentsResponse(agents=[_info(agent) for agent in self._agents().values()])

    async def cancel(self, request: pb.CancelRequest, context: Context) -> pb.CancelResponse:
        """Stop one of the caller's own runs. Its stream says how it ended."""
        async with self._answering(context):
            user_id = self._identity.user(context.invocation_metadata() or ())
            run_id = checked_run_id(request.run_id)
            if run := self._admission.find(user_id, run_id):
                run.stop(CANCELLED)
            elif self._recordings.find(user_id, run_id) is None:
                raise _no_such_run()
        return pb.CancelResponse()

    async def _attend(self, context: Context, recording: Recording, run_id: str, after: int) -> None:
        """Stream a resumable run from a position on, until it ends, the caller leaves, or another takes over."""
        # Taking over cancels a write. gRPC can still end a call after that, but not if its first write was cancelled.
        try:
            await context.send_initial_metadata(())
        except BaseException:
            recording.wait()
            raise
        async with recording.attached(after) as read:
            # Where there is nothing to say yet, a heartbeat says that the caller is attached.
            await self._stream(context, run_id, read, patience=0 if after else None)

    async def _stream(
        self, context: Context, run_id: str, read: Callable[[], Awaitable[bytes]], patience: float | None = None
    ) -> None:
        """Write what happens until there is no more of it, and a heartbeat whenever there was nothing for a while."""
        start = head(run_id)
        while True:
            try:
                async with asyncio.timeout(self._heartbeat if patience is None else patience):
                    events = await read()
            except TimeoutError:
                await _write(context, start)
            else:
                if not events:
                    return
                await _write(context, start + events)
            patience = None

    def _isolation(self, name: str) -> str:
        agents = self._agents()
        if name not in agents:
            sentence = f"There is no agent named {name[:80]!r}. There are: {', '.join(agents)}."
            raise Refusal(grpc.StatusCode.NOT_FOUND, sentence)
        return agents[name]["isolation"]

    def _time(self, remaining: float | None) -> tuple[float, float]:
        """Return how long a run may take, and how long its end may.

        A caller with a deadline of its own is to hear of it as an event: that has to be said before gRPC ends the call.
        """
        if remaining is None:
            return self._run_timeout, GRACE
        margin = min(max(0.1 * remaining, 0.05), 1.0)
        if remaining - margin > self._run_timeout + GRACE:
            return self._run_timeout, GRACE
        return min(max(remaining - margin, 0), self._run_timeout), margin / 2

    @asynccontextmanager
    async def _answering(self, context: Context) -> AsyncGenerator[None]:
        """Turn what is raised into the status that the caller gets. Nobody outside sees an exception's text."""
        try:
            yield
        except Refusal as refusal:
            self._log.info("call refused", status=refusal.code.name, message=refusal.message)
            await context.abort_with_status(refusal.status())
        except PlaceError as error:
            self._log.error("no place for a run", error=str(error))
            answer = unavailable("The engine cannot start a run right now. Try again.", "NO_PLACE")
            await context.abort_with_status(answer.status())
        except grpc.aio.AbortError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is: told as INTERNAL, and logged
            incident = uuid.uuid4().hex[:12]
            self._log.exception("call failed", incident=incident)
            sentence = f"Something went wrong inside the engine (incident {incident})."
            await context.abort(grpc.StatusCode.INTERNAL, sentence)


def _no_such_run() -> Refusal:
    return Refusal(grpc.StatusCode.NOT_FOUND, "You have no such run.")


def _info(agent: Mapping[str, str]) -> pb.AgentInfo:
    return pb.AgentInfo(name=agent["name"], description=agent["description"], isolation=agent["isolation"])


async def _write(context: Context, message: bytes) -> None:
    """Send a message, and wait until there is room for the next one: this is the call's flow control."""
    try:
        await context.write(message)
    except Exception as error:
        # A write fails when the caller is gone, a moment before gRPC says so by cancelling.
        raise asyncio.CancelledError from error
