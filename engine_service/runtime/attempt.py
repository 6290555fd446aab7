"""Which attempt of its run this is: what was left of those before, and what is saved for the next one."""

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from google.protobuf.duration_pb2 import Duration
from runwire.v1 import events_pb2 as pb

from engine_service.runtime.asking import Asking
from engine_service.runtime.event_writer import EventWriter
from engine_service.runtime.plain import is_plain, parameters, plain
from engine_service.wire import CHECKPOINT, MAX_STATE, NANOSECONDS, Checkpoint, Work, events_in

UNKNOWN = "The engine was lost while it went on: whether it was done is not known."
LOST = "The engine was lost while it was at work."


class Interrupted(NamedTuple):
    """A tool's call that went on when an engine was lost: whether it was done, nobody here knows."""

    tool: str
    arguments: Mapping[str, Any] | None
    """None where they were too large to be kept."""
    call_id: str
    agent: str
    """The path of whoever called it."""


class Attempt:
    """One attempt of a run. There is another one when its engine is lost, if it had saved something by then."""

    def __init__(self, work: Work, writer: EventWriter, asking: Asking) -> None:
        self._whose = work.user_id, work.run_id
        self._started = work.started
        self._recovery = recovery = work.recovery
        self._writer = writer
        self._asking = asking
        self._number = recovery.checkpoint.number if recovery else 0  # of the last checkpoint that is saved
        self._newest = self._number  # and of the last that was asked for
        self._is_over = False
        self._counts = Counter[str]()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._open = list(events_in(recovery.open)) if recovery else []
        self.restored: Any = json.loads(recovery.checkpoint.state) if recovery else None
        """What the attempt before has saved; None if this is the first."""
        self.interrupted = tuple(_interrupted(event) for event in self._open if event.HasField("tool_executing"))
        """Calls that went on when the engine was lost."""
        asking.remember(event for event in self._open if event.HasField("input_requested"))

    @property
    def is_first(self) -> bool:
        """Whether the run begins with it."""
        return self._recovery is None

    @property
    def age(self) -> int:
        """How many nanoseconds ago the run's first attempt began, by the time of day."""
        return max(time.time_ns() - int(self._started.timestamp() * NANOSECONDS), 0) if self._started else 0

    def tell(self, path: str) -> None:
        """Tell that it begins, and close what was open: those who are inside others first."""
        assert self._recovery, "there was one before"  # noqa: S101 - for the reader, and mypy
        recovered = pb.AgentRecovered(attempt=self._recovery.attempt, checkpoint_seq=self._recovery.checkpoint.seq)
        self._writer.put(path, bounded=False, agent_recovered=recovered)
        for event in reversed(self._open):
            begun = event.tool_executing
            if event.HasField("tool_executing"):
                completed = pb.ToolCompleted(
                    call_id=begun.call_id, tool=begun.tool, error=UNKNOWN, elapsed=_since(event)
                )
                self._writer.put(event.agent, bounded=False, tool_completed=completed)
            elif event.HasField("agent_started"):
                failed = pb.AgentFailed(reason=pb.FAILURE_REASON_ENGINE_LOST, message=LOST, retryable=True)
                self._writer.put(event.agent, bounded=False, agent_failed=failed)

    async def save(self, state: Any) -> None:
        """Save what another attempt is to go on from, and wait until it is where it survives this engine."""
        encoded = _encoded(state)
        if len(encoded) > MAX_STATE:
            raise ValueError(f"a checkpoint has at most {MAX_STATE} bytes, as JSON")
        if self._is_over:
            return  # there will be no other attempt
        self._newest = number = self._newest + 1
        self._asking.forget_earlier()
        saved = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._writer.tell_position(CHECKPOINT, lambda seq: Checkpoint(seq, number, encoded).encoded())
        try:
            await self._writer.drain()
            await saved
        finally:
            self._waiting.pop(number, None)

    def hear(self, body: bytes) -> None:
        """Hear which checkpoint is saved, and with it all before."""
        self._number = number = int(body)
        self._counts.clear()
        for each, waiter in tuple(self._waiting.items()):
            if each <= number:
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    def stop(self) -> None:
        """Hear that the run is told to stop: nothing more is saved, and nobody is to wait for it."""
        self._is_over = True
        for waiter in tuple(self._waiting.values()):
            waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    def key(self, path: str, tool: str, arguments: Mapping[str, Any]) -> str:
        """Return what a call has in common with itself in another attempt, and with no other."""
        if not is_plain(arguments):
            raise ValueError("only calls with plain values can be told again: text, numbers, lists, dictionaries")
        call = json.dumps([*self._whose, self._number, path, tool, plain(arguments)], sort_keys=True)
        self._counts[call] += 1
        return hashlib.sha256(f"{self._counts[call]} {call}".encode()).hexdigest()


def _encoded(state: Any) -> bytes:
    """Return a state as JSON. Raises ValueError where it would come back as something else."""
    try:
        encoded = json.dumps(state, separators=(",", ":"), allow_nan=False)
        is_same = json.loads(encoded) == state
    except (TypeError, ValueError, RecursionError):
        is_same, encoded = False, ""
    if not is_same:
        raise ValueError(
            "a checkpoint has to come back as it is: text, numbers, lists, and dictionaries with text as keys"
        )
    return encoded.encode()


def _interrupted(event: pb.Event) -> Interrupted:
    begun = event.tool_executing
    arguments = parameters(begun.arguments.SerializeToString()) if begun.HasField("arguments") else None
    return Interrupted(begun.tool, arguments, begun.call_id, event.agent)


def _since(event: pb.Event) -> Duration:
    elapsed = Duration()
    elapsed.FromNanoseconds(max(time.time_ns() - event.time.ToNanoseconds(), 0))
    return elapsed


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
