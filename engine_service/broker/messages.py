"""What the engine and the broker say to each other, over one SOCK_SEQPACKET socket whose end is the broker's own."""

from dataclasses import dataclass
from typing import get_args

from engine_service.broker.upstream import Upstream
from engine_service.messages import Codec

MAX_MESSAGE = 64 * 1024
"""Bytes of a message."""


@dataclass(frozen=True)
class Serve:
    """Serve these."""

    upstreams: tuple[Upstream, ...]
    tokens_per_run: int | None = None


@dataclass(frozen=True)
class Listen:
    """Take calls there, too. The socket comes along."""

    door: int
    """Which one it is."""


@dataclass(frozen=True)
class Leave:
    """Take no calls there any more."""

    door: int


@dataclass(frozen=True)
class Grant:
    """A run begins. Who shows this token is that run."""

    token: str
    run_id: str
    spent: int
    """Tokens of models that its earlier attempts used."""
    left: int | None
    """What whoever pays for it may use today; None for as much as they like."""
    pays: str


@dataclass(frozen=True)
class Left:
    """What somebody may still use today."""

    pays: str
    tokens: int


@dataclass(frozen=True)
class Revoke:
    """A run has ended."""

    token: str


@dataclass(frozen=True)
class Noted:
    """The run has been told of a call: its answer may end."""

    number: int


@dataclass(frozen=True)
class Serving:
    """All that is needed is there."""


@dataclass(frozen=True)
class Called:
    """A call to a model has ended, well or not."""

    number: int
    token: str
    pays: str
    upstream: str
    model: str
    status: int
    elapsed: float
    to_first_word: float | None
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    is_estimate: bool
    """Whether the model's server did not say how many tokens it were."""


@dataclass(frozen=True)
class Refused:
    """A call was not carried, or not to its end."""

    token: str
    upstream: str
    code: str
    message: str


Said = Serve | Listen | Leave | Grant | Left | Revoke | Noted | Serving | Called | Refused

CODEC = Codec[Said](*get_args(Said))
