"""Messages to canonical proto3 JSON and back, by functions compiled from their descriptors."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from runwire import structs

AS_IT_IS = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_UINT32}
"""Fields whose values JSON holds as they are."""

FEW = 2
"""Fields that are asked for one by one sooner than all together."""

Encode = Callable[[Any], Any]
Fill = Callable[[Any, Any], Iterator[int]]
"""Puts what JSON holds into a message, piece by piece, and says how many values each piece was."""
Read = Callable[[Any], Any]
"""Makes of what JSON holds what a field takes."""
M = TypeVar("M", bound=Message)
PIECE = 1_000
"""Values that are put into a message at once: at worst two milliseconds' worth."""
SOME = 100
"""Values of a Struct that are told together: each would pass through all that the Struct is in."""


class JsonError(ValueError):
    """What JSON holds is not what a message takes. The text says where and why."""


def encoder(message: Descriptor) -> Encode:
    """Compile a function that turns messages of a type into what JSON holds, as proto3 JSON wants it.

    Built from the descriptor alone, so that a new kind of event needs no change here.
    """
    return _Compiler().message(message)


class _Compiler:
    """Compiles one encoder for each type of message. A type that contains itself finds its own here."""

    def __init__(self) -> None:
        self._known: dict[str, Encode] = {
            "google.protobuf.Timestamp": _timestamp,
            "google.protobuf.Duration": _duration,
            "google.protobuf.Struct": structs.struct,
            "google.protobuf.Value": structs.value,
            "google.protobuf.ListValue": structs.items,
        }

    def message(self, descriptor: Descriptor) -> Encode:
        name = descriptor.full_name
        if name not in self._known:
            _refuse_unknown(descriptor)
            table: dict[int, tuple[str, Encode | None]] = {}
            self._known[name] = _encoder(table)
            table.update({field.number: (field.json_name, self.field(field)) for field in descriptor.fields})
            if len(descriptor.fields) <= FEW and all(map(_is_plain, descriptor.fields)):
                self._known[name] = _plain_encoder({field.name: field.json_name for field in descriptor.fields})
        return self._known[name]

    def field(self, field: FieldDescriptor) -> Encode | None:
        """Compile one field; None if its value is what JSON wants already."""
        one = self.single(field)
        if field.is_repeated:
            return (lambda values: [one(value) for value in values]) if one else list
        return one

    def single(self, field: FieldDescriptor) -> Encode | None:
        """Compile one value. A type that no message has is refused when the gateway starts, and not later."""
        if field.message_type:
            return self.message(field.message_type)
        if field.enum_type:
            names = {value.number: value.name for value in field.enum_type.values}
            return lambda number: names.get(number, number)
        if field.type in AS_IT_IS:
            return None
        raise TypeError(f"{field.full_name}: a field of this type cannot be written as JSON yet")


def _refuse_unknown(descriptor: Descriptor) -> None:
    """Refuse a message whose JSON is none of its fields', when the gateway starts, and not later."""
    if descriptor.full_name.startswith("google.protobuf.") or descriptor.GetOptions().map_entry:
        raise TypeError(f"{descriptor.full_name}: a message of this type is not JSON yet")


def _encoder(table: dict[int, tuple[str, Encode | None]]) -> Encode:
    def encode(message: Message) -> dict[str, Any]:
        encoded: dict[str, Any] = {}
        for field, value in message.ListFields():
            name, encode_one = table[field.number]
            encoded[name] = value if encode_one is None else encode_one(value)
        return encoded

    return encode


def _is_plain(field: FieldDescriptor) -> bool:
    """Tell whether a field is one value that JSON holds as it is, and that is left out when it is empty."""
    return field.type in AS_IT_IS and not field.is_repeated and not field.has_presence


def _plain_encoder(names: dict[str, str]) -> Encode:
    """Encode a message of few plain fields, as those are that there are most of. They are asked for one by one."""

    def encode(message: Message) -> dict[str, Any]:
        return {name: value for field, name in names.items() if (value := getattr(message, field))}

    return encode


def _timestamp(value: Any) -> str:
    nanos = value.nanos
    return f"{_second(value.seconds)}{_fraction(nanos) if nanos else ''}Z"


@functools.lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """Format a second. Nearly every event of a moment shares it."""
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"


def _duration(value: Any) -> str:
    seconds, nanos = value.seconds, value.nanos
    sign = "-" if seconds < 0 or nanos < 0 else ""
    return f"{sign}{abs(seconds)}{_fraction(abs(nanos)) if nanos else ''}s"


def _fraction(nanos: int) -> str:
    """Write nanoseconds with as many digits as they need: 3, 6 or 9."""
    if nanos % 1_000_000 == 0:
        return f".{nanos // 1_000_000:03}"
    if nanos % 1_000 == 0:
        return f".{nanos // 1_000:06}"
    return f".{nanos:09}"


def decoder(message: type[M]) -> Callable[[Any], Awaitable[M]]:
    """Compile a function that makes messages of a type of what JSON holds, as proto3 JSON wants it.

    For documents whose size and depth were looked at. It gives way to others, piece by piece. Raises JsonError.
    """
    fill = _Reader().message(cast("Any", message.DESCRIPTOR))

    async def decode(document: Any) -> M:
        made = message()
        put = 0
        for many in fill(made, document):
            put += many
            if put >= PIECE:
                put = 0
                await asyncio.sleep(0)
        return made

    return decode


class _Field(NamedTuple):
    """A field that may be set: its name, how, and which other one excludes it."""

    name: str
    put: Fill
    oneof: str | None


class _Reader:
    """Compiles what reads each type of message. A type that contains itself finds its own here."""

    def __init__(self) -> None:
        self._known: dict[str, Fill] = {
            "google.protobuf.Duration": _fill_from_text,
            "google.protobuf.Struct": _fill_struct,
            "google.protobuf.Timestamp": _fill_from_text,
        }

    def message(self, descriptor: Descriptor) -> Fill:
        name = descriptor.full_name
        if name not in self._known:
            _refuse_unknown(descriptor)
            table: dict[str, _Field] = {}
            self._known[name] = functools.partial(_fill_message, table)
            for field in descriptor.fields:
                table[field.name] = table[field.json_name] = self.field(field)
        return self._known[name]

    def field(self, field: FieldDescriptor) -> _Field:
        oneof = field.containing_oneof.name if field.containing_oneof else None
        if field.message_type:
            put = _put_each if field.is_repeated else _put_message
            return _Field(field.name, functools.partial(put, field.name, self.message(field.message_type)), oneof)
        return _Field(field.name, functools.partial(_put_scalar, field.name, _reader(field)), oneof)


def _reader(field: FieldDescriptor) -> Read:
    """Return what reads a scalar. Those that no request has are refused when the gateway starts, and not later."""
    if field.enum_type:
        values = field.enum_type.values_by_name
        return lambda value: values[value].number if isinstance(value, str) and value in values else _integer(value)
    if field.is_repeated or field.type not in SCALARS:
        raise TypeError(f"{field.full_name}: a field of this type cannot be read from JSON yet")
    return SCALARS[field.type]


def _put_each(name: str, fill: Fill, message: Message, value: Any) -> Iterator[int]:
    if not isinstance(value, list):
        raise JsonError("must be a list")
    add = getattr(message, name).add
    for each in value:
        yield from fill(add(), each)
        yield 1


def _put_message(name: str, fill: Fill, message: Message, value: Any) -> Iterator[int]:
    inner = getattr(message, name)
    inner.SetInParent()
    yield from fill(inner, value)


def _put_scalar(name: str, read: Read, message: Message, value: Any) -> Iterator[int]:
    setattr(message, name, read(value))
    yield 1


def _fill_message(table: dict[str, _Field], message: Message, document: Any) -> Iterator[int]:
    if not isinstance(document, dict):
        raise JsonError("must be an object")
    seen = set[str]()
    for name, value in cast("dict[str, Any]", document).items():
        field = table.get(name)
        if field is None:
            raise JsonError(f"there is no field {name[:80]!r}")
        if field.name in seen:  # in its other spelling: which of the two was meant?
            raise JsonError(f"{name!r} is one too many")
        seen.add(field.name)
        if value is None:
            continue
        if field.oneof and message.WhichOneof(field.oneof):
            raise JsonError(f"{name!r} is one too many")
        try:
            yield from field.put(message, value)
        except JsonError as error:
            raise JsonError(f"{name}: {error}") from error
        except (ValueError, TypeError, OverflowError) as error:  # protobuf's own: a number out of range, half a pair
            raise JsonError(f"{name}: cannot be that") from error


def _fill_from_text(message: Message, value: Any) -> Iterator[int]:
    if not isinstance(value, str):
        raise JsonError('must be text, like "60s" or "2026-01-01T00:00:00Z"')
    message.FromJsonString(value)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    yield 1


def _fill_struct(message: Any, value: Any) -> Iterator[int]:
    """Fill a Struct, without a stack that grows with its depth: each value would pass through all of it."""
    if not isinstance(value, dict):
        raise JsonError("must be an object")
    open_ones: list[tuple[Any, Any]] = [(message, value)]
    put = 0
    while open_ones:
        container, values = open_ones.pop()
        for filled, inner in _slots(container, values):
            if isinstance(inner, dict):
                filled.struct_value.SetInParent()
                open_ones.append((filled.struct_value, cast("Any", inner)))
            elif isinstance(inner, list):
                filled.list_value.SetInParent()
                open_ones.append((filled.list_value, cast("Any", inner)))
            else:
                _set_scalar(filled, inner)
            put += 1
            if put == SOME:
                put = 0
                yield SOME
    yield put


def _slots(container: Any, values: Any) -> Iterator[tuple[Any, Any]]:
    """Make room for each value of a Struct or a ListValue, in turn."""
    if isinstance(values, dict):
        fields = container.fields
        for key, value in cast("dict[str, Any]", values).items():
            yield fields[key], value
    else:
        add = container.values.add
        for value in values:
            yield add(), value


def _set_scalar(message: Any, value: Any) -> None:
    if isinstance(value, str):
        message.string_value = value
    elif value is None:
        message.null_value = 0
    elif isinstance(value, bool):
        message.bool_value = value
    else:
        message.number_value = value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise JsonError("must be text")
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise JsonError("must be true or false")
    return value


def _integer(value: Any) -> int:
    """Read a whole number, which JSON may write as one, as a double, or as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise JsonError("must be a whole number")
    if isinstance(value, str) and value != value.strip():
        raise JsonError("must be a whole number")
    number = int(value)
    if not isinstance(value, str) and number != value:
        raise JsonError("must be a whole number")
    return number


SCALARS: dict[int, Read] = {
    FieldDescriptor.TYPE_STRING: _string,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_UINT32: _integer,
}
