"""What an agent is given and owes."""

import asyncio
import copy
import datetime
import inspect
import re
import time
import traceback
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, overload

from google.protobuf.duration_pb2 import Duration
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import ROLE_USER, RunRequest

from engine_service.clock import Clock
from engine_service.runtime.asking import Asking, Questions, Reply
from engine_service.runtime.attempt import Attempt, Interrupted
from engine_service.runtime.brokered import Brokered
from engine_service.runtime.event_writer import EventTooLargeError, EventWriter, Sink, Speech
from engine_service.runtime.folder import Folder
from engine_service.runtime.open_calls import AROUND, Around, OpenCalls
from engine_service.runtime.plain import is_plain, parameters, struct, text
from engine_service.runtime.sub_agents import SubAgents
from engine_service.runtime.threads import in_thread
from engine_service.runtime.tool_calls import MAX_NAME, ToolCalls, since
from engine_service.usage import MOST, Meter
from engine_service.wire import ANSWER, CALLED, EVENT, LAST, NANOSECONDS, SAVED, USAGE, Isolation, Terms, Work

T = TypeVar("T")
INCIDENT = "_runwire_incident"
MAX_SENTENCE = 4096
"""Characters of a sentence that a failing agent or tool has for its user."""


class AgentError(Exception):
    """Raised by an agent to fail with a sentence that its user will read: the one exception whose text users see."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class ModelError(AgentError):
    """Raised when a model that an agent called failed, with a sentence for its user."""


class Declined(AgentError):  # noqa: N818 - as its author reads it
    """Raised where a tool was to be called, and its user said no."""


class Expired(AgentError):  # noqa: N818 - as its author reads it
    """Raised where a tool was to be called, and nobody said anything in time."""


class Answer(NamedTuple):
    """What an agent returns that has more to give than text."""

    output: str
    data: Mapping[str, Any] = {}


class Message(NamedTuple):
    """One thing that was said before in this conversation."""

    role: Literal["user", "assistant"]
    text: str


class Agent(ABC):
    """An agent: a class with a `run`. A new object is made for every run, and never used again.

    Its name is the class's in snake_case, unless it sets `name`; its description is the docstring's first paragraph.
    """

    name: ClassVar[str]
    isolation: ClassVar[Isolation | None] = None
    """Where its runs happen; None: where the engine's setting says, which is a process of its own."""
    public: ClassVar[bool] = True
    """False: for other agents to delegate to, and not for callers."""
    parameters_schema: ClassVar[Mapping[str, Any] | None] = None
    """What callers may send along: a JSON Schema of an object, or its properties alone, which are all required then.

    The engine refuses what is declared and otherwise; what isn't declared reaches the agent as it is."""
    resources: ClassVar[Mapping[str, Any]] = {}
    """What each of its runs needs of a cluster, where they happen on one: num_cpus, num_gpus and the like."""
    fork: ClassVar[bool] = True
    """False: its processes are started afresh. Slower by what its imports take; for modules that cannot be forked."""

    def __init_subclass__(cls) -> None:
        """Give the class its name."""
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def description(cls) -> str:
        """Say what the agent does."""
        return " ".join(((cls.__doc__ and inspect.cleandoc(cls.__doc__)) or "").split("\n\n")[0].split())

    @classmethod
    async def warm_up(cls) -> None:
        """Prepare what runs will share: imports, caches, schemas, and no connections.

        Called once, for all agents that have it from the same class, before runs' processes are forked. It saves them
        time, and nothing else: where nothing is forked it isn't called.
        """
        return

    @abstractmethod
    async def run(self, context: "RunContext", input: str) -> str | Answer | None:
        """Do the work, and return the answer."""


class Shared(NamedTuple):
    """What all agents of a run have together."""

    work: Work
    writer: EventWriter
    agents: Mapping[str, type[Agent]]
    calls: OpenCalls
    clock: Clock
    asking: Asking
    attempt: Attempt
    folder: Folder
    brokered: Brokered
    is_alone: bool
    """Whether no other run is in this process."""

    @classmethod
    def of(
        cls,
        work: Work,
        sink: Sink,
        agents: Mapping[str, type[Agent]],
        terms: Terms,
        on_clock: Callable[[Clock], None] | None = None,
        *,
        is_alone: bool,
        folder: Folder | None = None,
    ) -> "Shared":
        """Make what a new run needs, whose time begins now."""
        attempt, last_seq = (work.recovery.attempt, work.recovery.last_seq) if work.recovery else (1, 0)
        writer, calls = EventWriter(sink, terms.max_event_bytes, last_seq), OpenCalls(attempt)
        clock = Clock(terms.seconds, time.monotonic())
        asking = Asking(writer, calls, clock, terms.ask_timeout, on_clock)
        about = (folder or Folder(), Brokered(), is_alone)
        return cls(work, writer, agents, calls, clock, asking, Attempt(work, writer, asking), *about)

    def hear(self, tag: int, body: bytes) -> None:
        """Hear what the engine says during the run. Another word is of an engine that is newer than we are."""
        if tag == ANSWER:
            self.asking.hear(body)
        elif tag == SAVED:
            self.attempt.hear(body)
        elif tag == CALLED:
            self.brokered.hear(body)

    def stop(self) -> None:
        """Hear that the run is told to stop."""
        self.asking.stop()
        self.attempt.stop()


class RunContext:
    """What an agent is given: who asks, and the means to say what happens. Every `await` here is back-pressure."""

    def __init__(self, shared: Shared, path: str, meter: Meter) -> None:
        self._shared = shared
        self._work, self._writer, self._agents = shared.work, shared.writer, shared.agents
        self._meter = meter
        self._path = path
        self._is_root = "/" not in path
        self.tool_calls = ToolCalls(path, shared.writer, shared.calls)
        """Tells of tools that somebody else calls: a framework."""
        self.sub_agents = SubAgents(path, shared.writer, shared.asking, self._below)
        """Tells of sub-agents that somebody else runs."""
        self.questions = Questions(path, shared.asking, self.tool_calls)
        """Asks for somebody else: a framework."""
        self._thinking = Speech(path, "agent_thinking")
        self._saying = Speech(path, "agent_message")

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._work.run_id

    @property
    def user_id(self) -> str:
        """Who asks, as the engine verified it."""
        return self._work.user_id

    @property
    def claims(self) -> Mapping[str, Any]:
        """What the caller's token says of them, of what JWT_CLAIMS names; a service's own where that acts for users."""
        return self._claims

    @cached_property
    def _claims(self) -> Mapping[str, Any]:
        return MappingProxyType(dict(self._work.claims))

    @property
    def thread_id(self) -> str:
        """The conversation that the run belongs to, in the caller's words."""
        return self._work.thread_id

    @property
    def agent(self) -> str:
        """This agent's path: `triage`, or `triage/resolver` for a sub-agent."""
        return self._path

    @property
    def files(self) -> Path:
        """The run's own folder: empty at first, and gone with it. In a jail it is all that can be written to."""
        return self._shared.folder.path

    @property
    def is_alone(self) -> bool:
        """Whether no other run is in this process."""
        return self._shared.is_alone

    @property
    def history(self) -> tuple[Message, ...]:
        """What was said before, oldest first."""
        return self._history

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Whatever else the caller sent."""
        return self._parameters

    @cached_property
    def _history(self) -> tuple[Message, ...]:
        said = RunRequest.FromString(self._work.history).history
        return tuple(Message("user" if message.role == ROLE_USER else "assistant", message.text) for message in said)

    @cached_property
    def _parameters(self) -> Mapping[str, Any]:
        return parameters(self._work.parameters)

    @property
    def usage(self) -> pb.Usage | None:
        """What this agent's calls to models took until now; None when there were none."""
        return self._meter.usage

    @property
    def deadline(self) -> datetime.datetime | None:
        """When the run will be stopped. It comes later by what the run waits for its user."""
        if self._work.deadline is None:
            return None
        own = self._work.deadline + datetime.timedelta(seconds=self._shared.clock.extension)
        return min(own, self._work.callers_deadline or own)

    async def think(self, delta: str) -> None:
        """Show a piece of reasoning."""
        self._writer.speak(self._thinking, text(delta))
        await self._writer.drain()

    async def say(self, delta: str) -> None:
        """Show a piece of the answer."""
        self._writer.speak(self._saying, text(delta))
        await self._writer.drain()

    async def report(self, name: str, data: Mapping[str, Any] | None = None) -> None:
        """Show an event of the agent's own kind."""
        if not name:
            raise ValueError("a report needs a name")
        self._writer.put(self._path, agent_reported=pb.AgentReported(name=text(name), data=struct(data or {})))
        await self._writer.drain()

    async def count(
        self,
        model: str,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_input_tokens: int = 0,
        elapsed: float | None = None,
        to_first_word: float | None = None,
    ) -> None:
        """Say what a call to a model took. The sums are in the terminal event, however the run ends."""
        if not model:
            raise ValueError("a call to a model needs the model's name")
        tokens = {
            "input_tokens": input_tokens, "output_tokens": output_tokens, "cached_input_tokens": cached_input_tokens,
        }  # fmt: skip
        called = pb.ModelCalled(
            model=text(model)[:MAX_NAME],
            elapsed=_seconds(elapsed),
            to_first_word=_seconds(to_first_word),
            **{figure: min(max(many, 0), MOST) for figure, many in tokens.items()},
        )
        self._shared.brokered.is_needless = True
        self._tell_called(called)
        await self._writer.drain()

    def _tell_called(self, called: pb.ModelCalled) -> None:
        self._meter.count(called)
        self._writer.put(self._path, model_called=called)
        if usage := self._meter.root.usage:
            self._writer.tell(USAGE, usage.SerializeToString())

    def hear_called(self, calls: Iterable[pb.ModelCalled]) -> None:
        """Hear of calls to models that the agent has not told of."""
        for called in calls:
            self._tell_called(called)

    @overload
    async def call(self, tool: Callable[..., Awaitable[T]], /, **arguments: Any) -> T: ...

    @overload
    async def call(self, tool: Callable[..., T], /, **arguments: Any) -> T: ...

    async def call(self, tool: Callable[..., Any], /, **arguments: Any) -> Any:
        """Run a tool, between a `tool_executing` and the `tool_completed` that always follows it.

        A plain function runs in a thread. Cancelling ends the waiting for it; the thread itself ends with the process.
        """
        return await self._call(self._shared.calls.name(), tool, arguments)

    async def _call(self, call_id: str, tool: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        self.tool_calls.begin(_name(tool), arguments, call_id)
        [token] = self.tool_calls.tokens(call_id)
        around = AROUND.set((*AROUND.get(), Around(self.tool_calls.told(call_id), token)))
        try:
            await self._writer.drain()
            result = await _invoke(tool, arguments)
            self.tool_calls.end(call_id, result)
        except BaseException as error:
            self.tool_calls.fail(call_id, _explain(error, self._writer))
            raise
        finally:
            AROUND.reset(around)
        await self._writer.drain()
        return result

    async def ask(
        self,
        message: str,
        schema: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it is the question's, and told to the user
    ) -> Reply:
        """Ask the user, and wait: for as long as the question says, or the engine's setting.

        The reply has an outcome, accepted, declined or expired, and with the first its content: as the schema wants it,
        which is the answer's fields, or a JSON Schema of a flat object.
        """
        return await self.questions.ask(message, schema, timeout)

    async def approve(self, tool: Callable[..., Any], /, **arguments: Any) -> Any:
        """Call a tool if the user approves of exactly this call. Raises Declined and Expired.

        What is approved is this one call, as it was asked for, and serves no other.
        """
        if not is_plain(arguments):
            raise ValueError("only plain values can be approved of: text, numbers, lists and dictionaries of them")
        call_id, name, approved = self._shared.calls.name(), _name(tool), copy.deepcopy(arguments)
        reply = await self.questions.approval(name, approved, call_id)
        if reply.outcome == "declined":
            raise Declined(f"The user did not approve of {name}.")
        if reply.outcome == "expired":
            raise Expired(f"Nobody approved of {name} in time.", retryable=True)
        return await self._call(call_id, tool, approved)

    @property
    def restored(self) -> Any:
        """What an earlier attempt of this run has saved last, whose engine was lost; None in the first attempt."""
        return self._shared.attempt.restored if self._is_root else None

    @property
    def interrupted(self) -> tuple[Interrupted, ...]:
        """Calls of tools that went on when that engine was lost. Whether they were done is not known here."""
        return self._shared.attempt.interrupted

    async def checkpoint(self, state: Any) -> None:
        """Save what another engine can go on from if this one is lost: text, numbers, lists and dictionaries.

        Returns when it is saved, and with it all events before. There is another engine for runs with a resume_window,
        and processes of their own, where engines share a store; elsewhere this does nothing.
        """
        if not self._is_root:
            raise RuntimeError("only the agent that was asked for can save: it is what would be started again")
        await self._shared.attempt.save(state)

    def idempotency_key(self, tool: Callable[..., Any] | str, /, **arguments: Any) -> str:
        """Return a key for this call, which is the same in each attempt, and another one for each further call."""
        return self._shared.attempt.key(self._path, tool if isinstance(tool, str) else _name(tool), arguments)

    async def delegate(self, agent: str, input: str) -> str:
        """Run another agent inside this run, and return its answer. Its failure is raised as an AgentError."""
        if not agent or agent not in self._agents:
            there = ", ".join(filter(None, self._agents))
            raise LookupError(
                f"there is no agent named {agent!r} to delegate to; there are {there}, "
                "and one with `fork = False`, in a jail, or on a cluster, is there for its like alone"
            )
        return await perform(self._agents[agent], f"{self._path}/{agent}", input, self._shared, self._meter)

    def _below(self, path: str) -> "RunContext":
        return RunContext(self._shared, path, Meter(self._meter))


async def perform(agent: type[Agent], path: str, input: str, shared: Shared, above: Meter | None = None) -> str:
    """Run an agent from its `agent_started` to its terminal event, and return its answer.

    Raises AgentError when it failed, CancelledError when it was told to stop; both have been told as events by then.
    """
    root = "/" not in path
    meter = Meter(above, shared.work.recovery.usage if root and shared.work.recovery else b"")
    context, writer = RunContext(shared, path, meter), shared.writer

    if root:
        shared.brokered.begin(context.hear_called)

    def catch_up() -> None:
        if root:
            shared.brokered.finish()

    def end(*, bounded: bool = False, **kind: pb.AgentCompleted | pb.AgentFailed | pb.AgentCancelled) -> None:
        shared.asking.end(context.questions)
        writer.put(path, tag=LAST if root else EVENT, bounded=bounded, **kind)

    started = time.monotonic_ns()
    if root and not shared.attempt.is_first:
        started -= shared.attempt.age
        shared.attempt.tell(path)
    else:
        # The root's input was bounded as a request: an event limit below that must not make the request impossible.
        asked = pb.AgentStarted(thread_id=text(context.thread_id), input=text(input))
        writer.put(path, bounded=not root, agent_started=asked)
    try:
        await writer.drain()
        output, data = _answer(await agent().run(context, input))
        catch_up()
        completed = pb.AgentCompleted(
            output=text(output), data=struct(data), elapsed=since(started), usage=context.usage
        )
        end(bounded=True, agent_completed=completed)
    except BaseException as error:
        catch_up()
        if isinstance(error, asyncio.CancelledError) and _told_to_stop():
            cancelled = pb.AgentCancelled(reason="The agent was told to stop.", usage=context.usage)
            end(agent_cancelled=cancelled)
            raise
        failed = _failure(error, writer, context.usage)
        end(agent_failed=failed)
        kind = ModelError if failed.reason == pb.FAILURE_REASON_MODEL_ERROR else AgentError
        raise kind(failed.message, retryable=failed.retryable) from error
    await writer.drain()
    return output


def _told_to_stop() -> bool:
    """Tell a cancellation from a CancelledError that an agent raised by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _answer(returned: object) -> Answer:
    if isinstance(returned, Answer):
        return returned
    if returned is None or isinstance(returned, str):
        return Answer(returned or "")
    raise TypeError(f"an agent returns a str or an Answer, not a {type(returned).__name__}")


def _failure(error: BaseException, writer: EventWriter, usage: pb.Usage | None) -> pb.AgentFailed:
    if isinstance(error, MemoryError | EventTooLargeError):
        reason = pb.FAILURE_REASON_RESOURCE_LIMIT
    elif isinstance(error, ModelError):
        reason = pb.FAILURE_REASON_MODEL_ERROR
    else:
        reason = pb.FAILURE_REASON_AGENT_ERROR
    retryable = isinstance(error, AgentError) and error.retryable
    return pb.AgentFailed(reason=reason, message=_explain(error, writer), retryable=retryable, usage=usage)


def _explain(error: BaseException, writer: EventWriter) -> str:
    """Say in a sentence what went wrong, without the exception's own words: those go to the log, under an id."""
    if isinstance(error, AgentError):
        return text(error)[:MAX_SENTENCE]
    if isinstance(error, asyncio.CancelledError) and _told_to_stop():
        return "It was told to stop."
    if isinstance(error, EventTooLargeError):
        return f"It wanted to send {error}."
    what = "It ran out of memory" if isinstance(error, MemoryError) else "Something went wrong inside the agent"
    return f"{what} (incident {_incident(error, writer)})."


def _incident(error: BaseException, writer: EventWriter) -> str:
    """Return the id that an exception has in the log; a tool's, raised on by its agent, is still the same."""
    known = vars(error).get(INCIDENT)
    if isinstance(known, str):
        return known
    incident = uuid.uuid4().hex[:12]
    vars(error)[INCIDENT] = incident
    writer.note(f"incident {incident}\n{''.join(traceback.format_exception(error))}")
    return incident


def _name(tool: Callable[..., Any]) -> str:
    return str(getattr(tool, "__name__", type(tool).__name__))


async def _invoke(tool: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    if inspect.iscoroutinefunction(tool):
        return await tool(**arguments)
    result = await in_thread(tool, arguments)
    return await result if inspect.isawaitable(result) else result


def _seconds(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    elapsed = Duration()
    elapsed.FromNanoseconds(int(seconds * NANOSECONDS))
    return elapsed
