"""The runs that go on here, as operators see them: nothing of what is said in them."""

import asyncio
import os
import platform
from collections.abc import Sequence
from typing import NamedTuple

from runwire.operations.v1 import operations_pb2 as pb
from runwire.v1.events_pb2 import AgentCancelled

from engine_service.runs.admission import Admission
from engine_service.runs.peers import Peers
from engine_service.runs.refusal import Refusal
from engine_service.runs.resumable import Resumable, Resumables
from engine_service.runs.run import Run
from engine_service.workers.taken import Taken, all_taken

STOPPED = AgentCancelled(reason="Stopped by an operator.")


class Stopped(NamedTuple):
    """The runs that were told to stop, and those of which it cannot be said yet that nobody goes on with them."""

    told: Sequence[str]
    uncertain: Sequence[str]


class Roster:
    """Lists runs, and stops them."""

    def __init__(self, admission: Admission, resumables: Resumables, peers: Peers) -> None:
        self._admission = admission
        self._resumables = resumables
        self._peers = peers
        self._engine = f"{platform.node()}/{os.getpid()}"

    async def list(self, request: pb.ListRunsRequest) -> pb.ListRunsResponse:
        """List runs."""
        wanted = [
            run
            for run in self._admission.runs()
            if request.user_id in {"", run.work.user_id} and request.agent in {"", run.work.agent}
        ]
        taken = await asyncio.to_thread(all_taken, [run.pid for run in wanted if run.pid])
        runs = [self._status(run, taken.get(run.pid or 0)) for run in wanted if not run.is_over]
        return pb.ListRunsResponse(engine=self._engine, runs=sorted(runs, key=_began))

    async def stop(self, request: pb.StopRunsRequest) -> Stopped:
        """Stop runs."""
        which = str(request.WhichOneof("which"))
        wanted = str(getattr(request, which))
        found = [run for run in self._admission.runs() if getattr(run.work, which) == wanted]
        # One that is about to go on elsewhere is told to stop here, too, though not for that.
        told = {run.work.run_id: run for run in found if run.is_abandoned or not run.is_stopped}
        certain = await asyncio.gather(*map(self._stop, told.values()))
        uncertain = [run_id for run_id, is_certain in zip(told, certain, strict=True) if not is_certain]
        return Stopped([run_id for run_id in told if run_id not in uncertain], uncertain)

    async def _stop(self, run: Run) -> bool:
        """Stop one, and tell whether nobody goes on with it."""
        try:
            await self._peers.stop(self._resumable(run) or run, STOPPED)
        except Refusal:
            return False
        return not run.is_abandoned

    def _resumable(self, run: Run) -> Resumable | None:
        return self._resumables.find(run.work.user_id, run.work.run_id)

    def _status(self, run: Run, taken: Taken | None) -> pb.RunStatus:
        work, resumable = run.work, self._resumable(run)
        status = pb.RunStatus(
            run_id=work.run_id,
            user_id=work.user_id,
            service=work.service,
            agent=work.agent,
            thread_id=work.thread_id,
            last_seq=run.count,
            is_resumable=resumable is not None,
            is_read=resumable is None or resumable.has_reader,
        )
        status.started.CopyFrom(run.info().started)
        if run.is_waiting:
            status.waiting = pb.WAITING_USER
            status.tool = next((each.tool for each in run.questions.open if each.tool), "")
        elif resumable and resumable.is_full:
            status.waiting = pb.WAITING_READER
        if taken:
            status.memory_bytes = taken.memory
            status.processor_time.FromNanoseconds(int(taken.seconds * 1e9))
        return status


def _began(run: pb.RunStatus) -> int:
    return run.started.ToNanoseconds()
