"""For tests of agents: runs one here, without services, and gives what it told."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import uuid4

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from runwire.v1.engine_pb2 import ROLE_ASSISTANT, ROLE_USER, RunRequest, RunResponse
from runwire.v1.engine_pb2 import Message as Said
from runwire.v1.events_pb2 import Event, InputAnswered, InputRequested

from engine_service.runs.outcome import Outcome
from engine_service.runtime import objects, registry
from engine_service.runtime.agent import Agent, AgentError, Message, Shared, perform
from engine_service.runtime.asking import OUTCOMES, Reply
from engine_service.schema import Schema
from engine_service.wire import ANSWER, ASKED, CHECKPOINT, SAVED, Checkpoint, FrameSplitter, Recovery, Terms, Work
from runwire import structs

TERMS = Terms(modules=(), max_event_bytes=1024 * 1024, memory=0, seconds=3600, ask_timeout=3600)


class Ran(NamedTuple):
    """What a run told, from `agent_started` to its terminal event."""

    events: list[Event]
    saved: list[Any]
    """What it saved, each time."""

    @property
    def end(self) -> Event:
        """The terminal event."""
        return self.events[-1]

    @property
    def kinds(self) -> list[str]:
        """What happened, in words."""
        return [event.WhichOneof("kind") or "" for event in self.events]

    @property
    def output(self) -> str:
        """The answer of a run that completed."""
        return self._completed().agent_completed.output

    @property
    def data(self) -> dict[str, Any]:
        """The structured answer of a run that completed."""
        return MessageToDict(self._completed().agent_completed.data)

    def _completed(self) -> Event:
        if not self.end.HasField("agent_completed"):
            raise AssertionError(f"the run did not complete:\n{self.end}")
        return self.end


async def run(
    agent: object,
    input: str = "",
    *,
    user_id: str = "tester",
    claims: Mapping[str, Any] | None = None,
    thread_id: str = "",
    history: Iterable[Message | tuple[str, str]] = (),
    parameters: Mapping[str, Any] | None = None,
    others: Iterable[object] = (),
    answer: Callable[[InputRequested], Reply] | None = None,
    restored: Any = None,
) -> Ran:
    """Run an agent as the engine would, in this process: a class, a function, or a framework's object.

    `others` are those that it delegates to; `answer` says what its user replies to a question, which expires at once
    without it; `restored` is what an earlier attempt has saved. What the agent raises is told as an event, as to a
    caller. Runs that share a server of tools (MCP) which may ask go one after the other.
    """
    root, *rest = [_agent(each) for each in (agent, *others)]
    said = [Said(role=ROLE_USER if role == "user" else ROLE_ASSISTANT, text=text) for role, text in history]
    sent = Struct()
    sent.update(dict(parameters or {}))
    schema = registry.described(root, root.__module__, "process").schema
    if schema and (wrong := schema.violations(structs.struct(sent))):
        raise AssertionError(f"the parameters are not what {root.name!r} declares: {wrong}")
    work = Work(
        run_id=str(uuid4()),
        user_id=user_id,
        claims=claims or {},
        agent=root.name,
        input=input,
        thread_id=thread_id,
        history=RunRequest(history=said).SerializeToString(),
        parameters=sent.SerializeToString(),
        recovery=None if restored is None else _recovery(restored),
    )
    kept = _Kept(answer or _nobody)
    shared = Shared.of(work, kept, {each.name: each for each in (root, *rest)}, TERMS, is_alone=True)
    kept.shared = shared
    try:
        with suppress(AgentError):  # its terminal event has been said
            await perform(root, root.name, input, shared)
    finally:
        shared.folder.close()
    told = Outcome(root.name, TERMS.max_event_bytes).take(bytes(kept.frames))
    if kept.wrong:
        raise AssertionError(kept.wrong)
    return Ran(list(RunResponse.FromString(told).events), kept.saved)


def _recovery(state: Any) -> Recovery:
    checkpoint = Checkpoint(0, 1, json.dumps(state).encode())
    return Recovery(attempt=2, last_seq=0, checkpoint=checkpoint, open=b"", usage=b"")


def _agent(found: object) -> type[Agent]:
    name = getattr(found, "__name__", None) or getattr(found, "name", None) or "agent"
    agent = objects.agent_of(found, str(name))
    if agent is None:
        raise TypeError(f"{found!r} is no agent: an agent is {registry.AN_AGENT}")
    return agent


def _nobody(_: InputRequested) -> Reply:
    return Reply("expired")


class _Kept:
    """Takes frames, and never makes anybody wait. Questions are answered by a function, which is checked."""

    drained = True

    def __init__(self, answer: Callable[[InputRequested], Reply]) -> None:
        self.frames = bytearray()
        self.saved: list[Any] = []
        self.shared: Shared
        self.wrong = ""
        self._answer = answer
        self._loop = asyncio.get_running_loop()

    def write(self, frame: bytes) -> None:
        """Take a frame."""
        self.frames += frame
        if frame[0] not in {ASKED, CHECKPOINT}:
            return
        splitter = FrameSplitter(TERMS.max_event_bytes)
        splitter.cut(frame)
        body = splitter.heard[0][1]
        if frame[0] == ASKED:
            self._loop.call_soon_threadsafe(self._settle, Event.FromString(body).input_requested)
        elif checkpoint := Checkpoint.read(body):
            self.saved.append(json.loads(checkpoint.state))
            self._loop.call_soon_threadsafe(self.shared.hear, SAVED, b"%d" % checkpoint.number)

    def _settle(self, request: InputRequested) -> None:
        reply = self._answer(request)
        content = Struct()
        content.update(dict(reply.content))
        is_bound = request.HasField("schema") and reply.outcome == "accepted"
        if is_bound and (wrong := Schema(structs.struct(request.schema)).violations(structs.struct(content))):
            self.wrong = f"the answer to {request.message!r} is not what was asked for: {wrong}"
            reply = Reply("expired")
        outcome = next(number for number, name in OUTCOMES.items() if name == reply.outcome)
        answered = InputAnswered(request_id=request.request_id, outcome=outcome, content=content, answered_by="tester")
        self.shared.hear(ANSWER, answered.SerializeToString())

    async def drain(self) -> None:
        """Wait for nothing."""


__all__ = ["Message", "Ran", "run"]
