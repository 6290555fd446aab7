"""What happens during a run, as plain values: one class for each kind of event, to `match` by."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, TypeVar

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from runwire.v1 import engine_pb2, events_pb2

from runwire import structs

T = TypeVar("T")
Outcome = Literal["accepted", "declined", "expired", "unspecified"]
Values = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened. One of this very class is of a kind that this client is too old to know."""

    seq: int
    """Counts 1, 2, 3 … without a gap."""
    time: datetime
    agent: str
    """A path: `triage`, or `triage/resolver` for a sub-agent."""

    type: ClassVar[str] = "unknown"
    """The kind's name, like `agent_message`."""

    @property
    def is_end(self) -> bool:
        """Whether it is the run's terminal event."""
        return isinstance(self, (AgentCompleted, AgentFailed, AgentCancelled)) and "/" not in self.agent


@dataclass(frozen=True, kw_only=True)
class AgentStarted(Event):
    """An agent began."""

    thread_id: str = ""
    input: str = ""


@dataclass(frozen=True, kw_only=True)
class AgentThinking(Event):
    """A piece of an agent's reasoning."""

    delta: str = ""


@dataclass(frozen=True, kw_only=True)
class AgentMessage(Event):
    """A piece of an agent's answer."""

    delta: str = ""


@dataclass(frozen=True, kw_only=True)
class ToolExecuting(Event):
    """A tool was called."""

    call_id: str = ""
    tool: str = ""
    arguments: Values = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ToolCompleted(Event):
    """A tool returned, or there is an `error` that says why not."""

    call_id: str = ""
    tool: str = ""
    result: Any = None
    error: str | None = None
    elapsed: float | None = None


@dataclass(frozen=True, kw_only=True)
class AgentReported(Event):
    """An event of the agent's own kind."""

    name: str = ""
    data: Values = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What an agent asks its user."""

    request_id: str = ""
    reason: Literal["question", "tool_approval"] = "question"
    message: str = ""
    call_id: str = ""
    schema: Values | None = None
    """A JSON Schema of a flat object."""
    proposed: Values | None = None
    """The arguments that the tool would be called with."""
    expires_at: datetime | None = None
    tool: str = ""


@dataclass(frozen=True, kw_only=True)
class InputRequested(Question, Event):
    """The agent asks its user something, and waits."""


@dataclass(frozen=True, kw_only=True)
class InputAnswered(Event):
    """A question is settled."""

    request_id: str = ""
    outcome: Outcome = "unspecified"
    content: Values = field(default_factory=dict)
    answered_by: str = ""


@dataclass(frozen=True, kw_only=True)
class AgentRecovered(Event):
    """Another engine goes on with the run. Text between `checkpoint_seq` and this event is void."""

    attempt: int = 0
    checkpoint_seq: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelCalled(Event):
    """A call to a model has ended."""

    model: str = ""
    elapsed: float | None = None
    to_first_word: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelUsage:
    """What calls to one model took together."""

    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    cached_input_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What calls to models took together."""

    models: list[ModelUsage] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class AgentCompleted(Event):
    """An agent finished its work."""

    output: str = ""
    data: Values = field(default_factory=dict)
    elapsed: float | None = None
    usage: Usage | None = None


@dataclass(frozen=True, kw_only=True)
class AgentFailed(Event):
    """An agent could not finish its work. `reason` is like `timeout`, or `model_error`."""

    reason: str = "unspecified"
    message: str = ""
    retryable: bool = False
    usage: Usage | None = None


@dataclass(frozen=True, kw_only=True)
class AgentCancelled(Event):
    """An agent was told to stop."""

    reason: str = ""
    usage: Usage | None = None


@dataclass(frozen=True, kw_only=True)
class AgentInfo:
    """What there is to know about an agent before running it."""

    name: str = ""
    description: str = ""
    isolation: str = ""
    parameters_schema: Mapping[str, Any] | None = None
    """What may be sent along, as a JSON Schema; None where the agent's author has declared nothing."""


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What there is to know about a run."""

    run_id: str = ""
    agent: str = ""
    thread_id: str = ""
    started: datetime | None = None
    last_seq: int = 0
    questions: list[Question] = field(default_factory=list)
    is_over: bool = False
    service: str = ""
    """Who began it for its user, if that wasn't they themselves."""


def _named(shape: FieldDescriptor) -> str:
    """Return what message a field has; empty for one that has none."""
    return shape.message_type.name if shape.message_type else ""


KIND = events_pb2.Event.DESCRIPTOR.oneofs_by_name["kind"]
KINDS: dict[str, type[Event]] = {}
for _kind in KIND.fields:
    KINDS[_kind.name] = next(each for each in Event.__subclasses__() if each.__name__ == _named(_kind))
    KINDS[_kind.name].type = _kind.name

OWN: Mapping[str, Callable[[Any], Any]] = {
    "google.protobuf.Struct": structs.struct,
    "google.protobuf.Value": structs.value,
    "google.protobuf.Timestamp": lambda message: message.ToDatetime(tzinfo=UTC),
    "google.protobuf.Duration": lambda message: message.ToNanoseconds() / 1e9,
    events_pb2.Usage.DESCRIPTOR.full_name: lambda message: read(message, Usage),
    events_pb2.ModelUsage.DESCRIPTOR.full_name: lambda message: read(message, ModelUsage),
    events_pb2.InputRequested.DESCRIPTOR.full_name: lambda message: read(message, Question),
}
"""How messages inside messages are read."""


def event(message: events_pb2.Event) -> Event:
    """Read an event."""
    about: Values = {"seq": message.seq, "time": message.time.ToDatetime(tzinfo=UTC), "agent": message.agent}
    kind = message.WhichOneof("kind")
    return read(getattr(message, kind), KINDS[kind], **about) if kind else Event(**about)


def read(message: Message, into: Callable[..., T], **about: Any) -> T:
    """Read a message into the class that has its fields. What is missing is what the class says it is then."""
    known = _names(into)
    found = {shape.name: _value(shape, value) for shape, value in message.ListFields() if shape.name in known}
    return into(**about, **{name: value for name, value in found.items() if value is not None})


@functools.cache
def _names(into: Any) -> frozenset[str]:
    return frozenset(each.name for each in dataclasses.fields(into))


def _value(shape: FieldDescriptor, value: Any) -> Any:
    if shape.message_type:
        own = OWN[shape.message_type.full_name]
        return [own(each) for each in value] if shape.is_repeated else own(value)
    return _word(shape.enum_type, value) if shape.enum_type else value


def _word(shape: EnumDescriptor, number: int) -> str | None:
    """Return an enum's word: `model_error` for FAILURE_REASON_MODEL_ERROR. One that is not known has none."""
    known = shape.values_by_number
    prefix = known[0].name.removesuffix("UNSPECIFIED")
    return known[number].name.removeprefix(prefix).lower() if number in known else None


def agents(lists: Iterable[engine_pb2.ListAgentsResponse]) -> list[AgentInfo]:
    """Read lists of agents."""
    return [read(each, AgentInfo) for message in lists for each in message.agents]


def runs(lists: Iterable[engine_pb2.ListRunsResponse]) -> list[RunInfo]:
    """Read lists of runs into one: newest first."""
    newest_first = sorted((each for message in lists for each in message.runs), key=_began, reverse=True)
    return [read(each, RunInfo) for each in newest_first]


def _began(run: engine_pb2.RunInfo) -> int:
    return run.started.ToNanoseconds()
