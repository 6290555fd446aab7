"""What the engine and its driver on a cluster say to each other, over one SOCK_SEQPACKET socket."""

from dataclasses import dataclass
from typing import Literal, get_args

from engine_service.messages import Codec
from engine_service.wire import Description, Terms

MAX_MESSAGE = 128 * 1024
"""Bytes of a message."""
MAX_TEXT = 16 * 1024
"""Characters of a line for the log."""


@dataclass(frozen=True)
class Connect:
    """Be a driver of this cluster."""

    address: str
    runtime_env: str
    """What is to be on its nodes for all runs, as JSON."""


@dataclass(frozen=True)
class Rehearse:
    """Find out whether runs of an agent would get somewhere."""

    number: int
    agent: Description
    terms: Terms
    import_timeout: float


@dataclass(frozen=True)
class Begin:
    """Have a run. Where its work comes from, and its events go, comes along."""

    number: int
    agent: Description
    terms: Terms
    import_timeout: float


@dataclass(frozen=True)
class Kill:
    """End a run at once."""

    number: int


@dataclass(frozen=True)
class Connected:
    """The cluster is there."""

    address: str
    nodes: int


@dataclass(frozen=True)
class NotConnected:
    """The cluster cannot be had."""

    error: str


@dataclass(frozen=True)
class Rehearsed:
    """It was tried."""

    number: int
    node: str
    """Where; nowhere, when no node of now has what runs need."""
    error: str


@dataclass(frozen=True)
class Placed:
    """A run has its process."""

    number: int
    node: str


@dataclass(frozen=True)
class Logged:
    """Something is for the log, of a run."""

    number: int
    level: Literal["info", "warning", "error"]
    event: str
    text: str


@dataclass(frozen=True)
class Ended:
    """Nothing of a run is left."""

    number: int
    how: str


Said = Connect | Rehearse | Begin | Kill
Told = Connected | NotConnected | Rehearsed | Placed | Logged | Ended

CODEC = Codec[Said | Told](*get_args(Said), *get_args(Told))
