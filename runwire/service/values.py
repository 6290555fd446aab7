"""How many values a message has: counted on the wire before it is parsed, in pieces that give way to others."""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.descriptor import Descriptor

from runwire.service import varint

MAX_VALUES = 10_000
"""Elements of lists and entries of maps, at any depth, that a request may have: messages of its history among them."""
FIELDS_PER_VALUE = 4
"""Fields that a value takes at most: an entry, its key, its value, and what kind of value that is."""
OTHER_FIELDS = 100
"""Fields that a request may have besides."""
MAX_DEPTH = 100
"""Messages inside one another. It is as many as protobuf follows."""
PIECE = 2_000
"""Fields that are walked at once: a millisecond's worth."""

EXPONENT = (0xF0, 0x7F)
"""The last two bytes of a double that is infinite, or no number, but for its sign and what follows its exponent."""
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


class ValuesError(ValueError):
    """A message that has too many values, or is none. The text says why, as the rest of a sentence."""


class Inner(NamedTuple):
    """A field that holds messages."""

    shape: "Shape"
    is_many: bool


Shape = dict[int, Inner]
"""What is inside a message: those of its fields that hold messages, by number."""


def shape_of(descriptor: Descriptor, known: dict[str, Shape] | None = None) -> Shape:
    """Compile a message's shape from its descriptor alone, so that a new field needs no change here."""
    known = {} if known is None else known
    if descriptor.full_name not in known:
        shape = known[descriptor.full_name] = {}
        for field in descriptor.fields:
            if field.message_type:
                shape[field.number] = Inner(shape_of(field.message_type, known), field.is_repeated)
    return known[descriptor.full_name]


async def count(data: bytes, shape: Shape, *, before: int = 0) -> int:
    """Return how many values a message has, and so many before it. Raises ValuesError as soon as there are too many."""
    walk = _Walk(data, shape, before)
    for _ in walk.steps():
        await asyncio.sleep(0)
    return walk.values


class Field(NamedTuple):
    """Where a field of a message lies: from its tag to its end, and where its content begins."""

    number: int
    begin: int
    content: int
    end: int


def fields(data: bytes) -> Iterator[Field]:
    """Find the fields of a message, whatever is inside them. Raises ValuesError when there are too many."""
    at = found = 0
    while at < len(data):
        begin = at
        number, content, at = _field(data, at, len(data))
        found += 1
        if found > MAX_VALUES + OTHER_FIELDS:
            raise ValuesError(f"must have at most {MAX_VALUES} values")
        yield Field(number, begin, content, at)


class _Walk:
    """One walk through a message."""

    def __init__(self, data: bytes, shape: Shape, before: int) -> None:
        self._data = data
        self._inside = [(len(data), shape)]  # the messages that we are in, outermost first: their ends, their shapes
        self.values = before

    def steps(self) -> Iterator[None]:
        """Walk, a piece at a time."""
        data, inside = self._data, self._inside
        at = walked = 0
        while inside:
            end, shape = inside[-1]
            if at == end:
                inside.pop()
                continue
            number, content, at = _field(data, at, end)
            walked += 1
            if inner := shape.get(number):
                self.values += inner.is_many
                inside.append((at, inner.shape))
                at = content
            if self.values > MAX_VALUES or walked > FIELDS_PER_VALUE * MAX_VALUES + OTHER_FIELDS:
                raise ValuesError(f"must have at most {MAX_VALUES} values")
            if len(inside) > MAX_DEPTH:
                raise ValuesError("is nested too deeply")
            if walked % PIECE == 0:
                yield


def _field(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Return a field's number, and where its content begins and ends."""
    try:
        tag, at = varint.decoded(data, at)
        kind = tag & 7
        content = at
        if kind == LENGTH:
            length, content = varint.decoded(data, at)
            at = content + length
        elif kind == VARINT:
            _, at = varint.decoded(data, at)
        elif kind == FIXED64:
            at += 8
            if data[at - 1] & EXPONENT[1] == EXPONENT[1] and data[at - 2] >= EXPONENT[0]:
                raise ValuesError("must hold no number that JSON has no word for")
        elif kind == FIXED32:
            at += 4
        else:
            raise ValuesError("cannot be read")
    except (IndexError, varint.VarintError):
        raise ValuesError("cannot be read") from None
    if at > end:
        raise ValuesError("cannot be read")
    return tag >> 3, content, at
