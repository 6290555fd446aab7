"""All that the engine, the zygote and the runs' processes say to each other.

Between an agent and its run, events travel as frames: a tag of one byte, a length, a body. The tag of an event is the
tag of `RunResponse.events`, so that frames laid end to end are the events of a RunResponse, and whoever passes them on
decodes nothing.
"""

import datetime
import json
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self, get_args

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import RunInfo, RunRequest, RunResponse

from engine_service import resources
from engine_service.messages import Codec, NonsenseError
from engine_service.schema import ParametersSchema
from runwire.service import varint

Isolation = Literal["jail", "process", "ray", "task"]
"""Where a run can happen."""

GRACE = 2.0
"""Seconds that an agent has to clean up after it was told to stop."""


EVENT = 0x12
"""An event: field 2, length-delimited, as in RunResponse."""
LAST = 0x1A
"""The root agent's terminal event. A tag of its own lets the run see the end without decoding; it leaves as EVENT."""
NOTE = 0x22
"""Text for the engine's log. It never leaves the engine."""

USAGE = 0x3A
"""What the run's calls to models took so far. It leaves the engine in a terminal event that the engine says."""
ASKED, WITHDRAWN = 0x42, 0x4A
"""An `input_requested`, and an `input_answered` of a question that its agent waits for no longer. They leave as EVENT:
these tags let the engine know, since it decides what becomes of questions."""
WAITING = 0x52
"""Whether the agent does nothing but wait for its user: one byte, or none. It never leaves the engine."""
CHECKPOINT = 0x5A
"""What the agent wants to go on from when its engine is lost. It never leaves the engines."""

PROCESSES = 256
"""Processes that one run may have, its threads among them, where they can be counted."""

MAX_OPEN = 64
"""Questions that one run may have open."""
MAX_QUESTION = 64 * 1024
"""Bytes of a question, and of an answer."""
MAX_QUESTIONS = 256 * 1024
"""Bytes of all questions that one run has open."""
LONGEST = 366 * 86_400.0
"""Seconds that a question may wait."""

MAX_SCHEMA = 32 * 1024
"""Bytes of what an agent says of its parameters."""

MAX_STATE = 256 * 1024
"""Bytes of what an agent saves."""

TAGS = {EVENT, LAST, NOTE, USAGE, ASKED, WITHDRAWN, WAITING, CHECKPOINT}

MAX_NOTE = 64 * 1024
"""Bytes of one note; what is longer is cut off."""

MIN_LIMIT = 2 * 1024 * 1024
"""Bytes that the engine takes in one frame, however few an event may have: `agent_started` carries the input."""

PARAMETERS = 0x32
"""A request's parameters: field 6 of RunRequest."""

NANOSECONDS = 1_000_000_000
SIZE = struct.Struct(">I")
TRACE_ID = slice(3, 35)
"""Where a traceparent has the id of its trace."""


def frame(tag: int, body: bytes) -> bytes:
    """Put a tag and a length in front of a body."""
    return bytes((tag,)) + varint.encoded(len(body)) + body


def event_frame(event: pb.Event) -> bytes:
    """Encode an event."""
    return frame(EVENT, event.SerializeToString())


def stamp(event: pb.Event) -> pb.Event:
    """Write the time of day on an event."""
    event.time.seconds, event.time.nanos = divmod(time.time_ns(), NANOSECONDS)
    return event


def word_of(enum: Any, number: int) -> str:
    """Return what a number of an enum of the contract means, in a word. An agent's process may say one that is none."""
    name = str(enum.Name(number)) if number in enum.values() else "other"
    prefix = "".join(f"_{each}" if each.isupper() else each for each in enum.DESCRIPTOR.name).lstrip("_").upper()
    return name.removeprefix(f"{prefix}_").lower()


def events_in(frames: bytes | bytearray) -> Iterator[pb.Event]:
    """Decode event frames."""
    return iter(RunResponse.FromString(bytes(frames)).events)


def ends(frames: bytes | bytearray, at: int) -> Iterator[int]:
    """Find where each frame ends, of frames that are whole."""
    while at < len(frames):
        length, at = varint.decoded(frames, at + 1)
        at += length
        yield at


class FrameSplitter:
    """The engine's side: cuts what was read at the last whole frame, counts events, and decodes nothing."""

    def __init__(self, max_event_bytes: int, count: int = 0) -> None:
        self._max_body = max(max_event_bytes, MIN_LIMIT)
        self._rest = bytearray()
        self.count = count
        """The number of the newest event that was cut, the last one not among them."""
        self.broken: str | None = None
        """What is wrong with what came, if it is no sequence of frames. What follows is dropped."""
        self.last: bytes | None = None
        """The body of the terminal event, once there is one. What follows it is dropped."""
        self.usage = b""
        """What the run's calls to models took, as far as that was said."""
        self.notes: list[str] = []
        """What the agent's side had to say to the log. Whoever reads it clears it."""
        self.heard: list[tuple[int, bytes]] = []
        """What it asks its user, whether it waits for that, and what it saves. Whoever reads it clears it."""

    def cut(self, data: bytes | bytearray) -> bytes:
        """Take what was read, and return the event frames that are whole."""
        if self.broken:
            return b""
        if self._rest:
            self._rest += data
            data = self._rest
        start = at = 0
        events: list[bytes | bytearray] = []
        size = len(data)
        while self.last is None:
            # Most frames are short events: for these nothing is called.
            while at + 1 < size and data[at] == EVENT and data[at + 1] < varint.MORE and at + 2 + data[at + 1] <= size:
                at += 2 + data[at + 1]
                self.count += 1
            if (found := self._frame(data, at)) is None:
                break
            body, end = found
            tag = data[at]
            if tag == EVENT:
                self.count += 1
            else:
                events.append(data[start:at])
                start = end
                if shown := self._take(tag, bytes(data[body:end])):
                    events.append(shown)
            at = end
        events.append(data[start:at])
        if data is self._rest and self.last is None:
            del self._rest[:at]  # in place: an event may come in many pieces
        else:
            self._rest = bytearray(b"" if self.last is not None else data[at:])
        return b"".join(events)

    def _take(self, tag: int, body: bytes) -> bytes:
        """Take what is not only an event, and return the event that it is, if it is one."""
        if tag == LAST:
            self.last = body
        elif tag == USAGE:
            self.usage = body
        elif tag == NOTE:
            self.notes.append(body.decode(errors="replace"))
        else:
            self.heard.append((tag, body))
        if tag not in {ASKED, WITHDRAWN}:
            return b""
        self.count += 1
        return frame(EVENT, body)

    def _frame(self, data: bytes | bytearray, at: int) -> tuple[int, int] | None:
        """Find where the body of the frame at a position begins and ends; None if it isn't whole, or is none."""
        if at >= len(data):
            return None
        if data[at] not in TAGS:
            self.broken = f"unknown tag {data[at]:#x}"
            return None
        try:
            length, body = varint.decoded(data, at + 1)
        except IndexError:  # not all of it is here yet
            return None
        except varint.VarintError:
            length, body = sys.maxsize, at
        if length > self._max_body:
            self.broken = "a frame over the size of an event"
            return None
        return (body, body + length) if body + length <= len(data) else None


class Checkpoint(NamedTuple):
    """What an agent has saved, and when."""

    seq: int
    """The number of the last event before."""
    number: int
    """How many its run has until now."""
    state: bytes
    """As JSON."""

    def encoded(self) -> bytes:
        """Write it for the engine."""
        return _SAVED.pack(self.seq, self.number) + self.state

    @classmethod
    def read(cls, body: bytes) -> Self | None:
        """Read it; None if it is none, or too large."""
        if not _SAVED.size <= len(body) <= _SAVED.size + MAX_STATE:
            return None
        seq, number = _SAVED.unpack_from(body)
        return cls(seq, number, body[_SAVED.size :])


_SAVED = struct.Struct("!II")


@dataclass(frozen=True, slots=True)
class Recovery:
    """What is left of the attempts before, of a run whose engine was lost."""

    attempt: int
    """Which one begins."""
    last_seq: int
    """The number of the newest event that was said."""
    checkpoint: Checkpoint
    open: bytes
    """The events that have begun what did not end: calls of tools, sub-agents, questions."""
    usage: bytes
    """What calls to models took until now."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done in one run, for whom, and until when. Holds plain values only, so that it can travel."""

    run_id: str
    user_id: str
    agent: str
    service: str = ""
    """Who began it for its user, if that wasn't they themselves."""
    input: str = ""
    thread_id: str = ""
    history: bytes = b""  # as the messages of a RunRequest, as it came: decoded where it is used
    parameters: bytes = b""  # a Struct, as it came: decoded where it is used
    deadline: datetime.datetime | None = None
    """When its time is over, unless that stands still meanwhile."""
    callers_deadline: datetime.datetime | None = None
    """When its caller's patience is over, whatever happens."""
    traceparent: str = ""
    """The trace that its caller is part of, as W3C writes it."""
    span: str = ""
    """The same for whatever its agent uses: below the run's own span, where there is one."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """What is known of whoever began it, for the agent."""
    is_lasting: bool = False
    """Whether it may outlive its caller."""
    started: datetime.datetime | None = None
    """When its first attempt began."""
    recovery: Recovery | None = None
    """What it goes on from, if it isn't the first attempt."""
    token: str = ""
    """What it shows to the broker, which then knows whose it is. Worth nothing after the run."""

    @property
    def pays(self) -> str:
        """Whose limits count."""
        return self.service or self.user_id

    def written(self) -> bytes:
        """Write down what was asked, and what is known of whoever did: what another attempt needs to know."""
        about = json.dumps({"traceparent": self.traceparent, "claims": self.claims}).encode()
        asked = RunRequest(agent=self.agent, input=self.input, thread_id=self.thread_id, run_id=self.run_id)
        request = asked.SerializeToString() + self.history + frame(PARAMETERS, self.parameters)
        return SIZE.pack(len(about)) + about + request

    @classmethod
    def again(cls, user_id: str, written: bytes, info: RunInfo, recovery: Recovery) -> Self:
        """Return another attempt of a run that was `written` down."""
        size = int.from_bytes(written[: SIZE.size])
        about = json.loads(written[SIZE.size : SIZE.size + size])
        request = RunRequest.FromString(written[SIZE.size + size :])
        return cls(
            run_id=request.run_id,
            user_id=user_id,
            service=info.service,
            agent=request.agent,
            input=request.input,
            thread_id=request.thread_id,
            history=RunRequest(history=request.history).SerializeToString(),
            parameters=request.parameters.SerializeToString(),
            **about,
            is_lasting=True,
            started=info.started.ToDatetime(datetime.UTC),
            recovery=recovery,
        )

    def labels(self) -> dict[str, str]:
        """Say in the log which run it is, whose, and as part of which trace."""
        labels = {"run_id": self.run_id, "user_id": self.user_id, "agent": self.agent}
        more = {"acting": self.service, "trace_id": (self.span or self.traceparent)[TRACE_ID]}
        return labels | {name: value for name, value in more.items() if value}


PLACEHOLDER = "runwire-gives-each-run-its-own"
"""The key of every model server until a run begins: clients want one when they are made."""

FIRST = Work("run", "user", "", "What?", deadline=datetime.datetime.now(datetime.UTC))
"""What a process rehearses before there are users. No agent of anybody's can have no name."""


@dataclass(frozen=True)
class Description:
    """What there is to know about an agent without importing it."""

    name: str
    text: str
    isolation: Isolation
    source: str
    """The module that was named, and has it."""
    is_public: bool
    is_forked: bool
    parameters: str = ""
    """What callers may send along, as a JSON Schema; nothing where its author has declared nothing."""
    resources: str = ""
    """What its runs need of a cluster, as JSON."""

    @property
    def schema(self) -> ParametersSchema | None:
        """The same, to check by. Raises ValueError where it is none."""
        return ParametersSchema(json.loads(self.parameters)) if self.parameters else None


class RegistryError(Exception):
    """The agents cannot be had as they were named. The message says what to do."""


@dataclass(frozen=True)
class JailTerms:
    """What the engine wants of a jail."""

    home: str
    """The folder that its runs' own are in."""
    read: tuple[str, ...]
    """What may be read, besides what is needed."""
    disk: int
    """Bytes that a run may write."""
    require: tuple[str, ...]
    """The layers without which there is no jail."""
    environ: tuple[str, ...]
    """Variables of the engine's environment that it has, besides its own."""
    missing: tuple[str, ...] = ()
    """Those that there are not, once that is known."""
    own: str = ""
    """The zygote's own folder, which its runs can read, once there is one."""


@dataclass(frozen=True)
class Terms:
    """What the engine wants of a zygote."""

    modules: tuple[str, ...]
    max_event_bytes: int
    memory: int
    seconds: float
    ask_timeout: float
    reload: bool = False
    isolation: Isolation = "process"
    """Where runs of agents happen that don't say."""
    assistant_model: str | None = None
    apart: tuple[str, ...] = ()
    """Modules whose agents are started afresh. They are not imported here."""
    user: tuple[int, int] | None = None
    """Whose rights to take on, before anything of the agents is imported: a user, and a group."""
    home: str = ""
    """The folder that runs' own folders are in."""
    jail: JailTerms | None = None
    """What its runs must not have, if it is to be a jail's."""
    is_cluster: bool = False
    """Whether this is a node of a cluster: then there is one run, which ends with its zygote."""
    upstreams: tuple[str, ...] = ()
    """Model servers that runs reach through the broker."""
    broker: str = ""
    """Where that is: HOST:PORT. In a jail, the zygote knows better."""

    def encoded(self) -> str:
        """Write the terms for a command line."""
        return _TERMS.written(self).decode()

    @staticmethod
    def read(text: str) -> "Terms":
        """Read them from there."""
        return _TERMS.read(text.encode())


_TERMS = Codec(Terms)


FORK, EXEC = b"fork", b"exec"
"""What the engine asks of a zygote, with three descriptors: where the child's work comes from, where its events and
prints go. A child is forked from what is there, or started afresh."""

LEASE = struct.Struct("!4sQQ")
"""What the engine tells a zygote of a child: its number, and at which nanosecond of the monotonic clock it ends, unless
that is told anew. Without a number, it is told anew of all of which it was told before."""
LEASED = b"till"

MAX_MESSAGE = 128 * 1024
"""Bytes of a message of the zygote's. Its socket keeps them apart."""


@dataclass(frozen=True)
class Importing:
    """A module is about to be imported."""

    module: str


@dataclass(frozen=True)
class Imported:
    """An agent is there."""

    agent: Description


@dataclass(frozen=True)
class WarmingUp:
    """An agent warms up."""

    agent: str


@dataclass(frozen=True)
class NotImported:
    """The agents cannot be had."""

    error: str


@dataclass(frozen=True)
class Jailed:
    """The jail is closed. The socket that listens in it for the broker comes along, if there is to be one."""

    holds: list[str]
    missing: dict[str, str]
    """Layers that there are not, and why."""


@dataclass(frozen=True)
class Watched:
    """A file that an agent's author may change."""

    file: str


@dataclass(frozen=True)
class Ready:
    """All is imported. What was said of it is all there is."""

    threads: int
    exits: int
    left: list[str]
    """Connections that were left open when agents warmed up, and are closed now."""
    opened: list[str]
    """What agents' modules opened at their import. Runs have it."""


@dataclass(frozen=True)
class Forked:
    """A child is there. A descriptor that names it comes along."""

    pid: int


@dataclass(frozen=True)
class NotForked:
    """A child could not be had."""

    error: str


@dataclass(frozen=True)
class Exited:
    """A child is gone, and so is what it started."""

    pid: int
    status: int


Told = Jailed | Importing | WarmingUp | Imported | NotImported | Watched | Ready | Forked | NotForked | Exited
"""What a zygote tells the engine."""

_CODEC = Codec[Told](*get_args(Told))


def told(message: Told) -> bytes:
    """Write what a zygote tells."""
    return _CODEC.written(message)


def heard(data: bytes) -> Told:
    """Read it. Raises NonsenseError: agents' modules are where it is told, and may tell it themselves."""
    try:
        message = _CODEC.read(data)
        if isinstance(message, Imported):
            _check_travels(message.agent.schema)
            resources.read(message.agent.resources)
    except (NonsenseError, ValueError, AttributeError, RecursionError) as error:
        raise NonsenseError(f"a zygote tells what means nothing: {error}") from error
    return message


def _check_travels(schema: ParametersSchema | None) -> None:
    """Find that a schema can be told to callers. Raises ValueError."""
    if schema is None:
        return
    try:
        if len(json.dumps(schema.document, allow_nan=False)) > MAX_SCHEMA:
            raise ValueError("a schema that is too long")
        Struct.FromString(ParseDict(schema.document, Struct()).SerializeToString())
    except (ParseError, DecodeError, OverflowError) as error:
        raise ValueError(str(error)) from error


WORK = 1
"""The first word to a run's process: its work. The end of the socket means: stop."""
ANSWER = 2
"""How a question was settled, as an `InputAnswered`."""
SAVED = 3
"""That a checkpoint is where it survives the engine: its number."""
CALLED = 4
"""What a call to a model through the broker took, as a `ModelCalled`."""

_HEAD = struct.Struct("!BI")


def word(tag: int, body: bytes) -> bytes:
    """Write a word to a run's process."""
    return _HEAD.pack(tag, len(body)) + body


class Words:
    """What the engine says to a run's process, put together again from pieces cut anywhere."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take a piece, and give out the words that are whole: a tag, and what was said."""
        self._rest += data
        while len(self._rest) >= _HEAD.size:
            tag, length = _HEAD.unpack_from(self._rest)
            end = _HEAD.size + length
            if len(self._rest) < end:
                return
            body = bytes(self._rest[_HEAD.size : end])
            del self._rest[:end]
            yield tag, body
