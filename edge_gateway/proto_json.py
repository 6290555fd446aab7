"""Messages to canonical proto3 JSON, by functions compiled from their descriptors."""

import base64
import functools
import time
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

Encode = Callable[[Any], Any]


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
            "google.protobuf.Struct": _struct,
            "google.protobuf.Value": _value,
            "google.protobuf.ListValue": _list,
        }

    def message(self, descriptor: Descriptor) -> Encode:
        name = descriptor.full_name
        if name not in self._known:
            if name.startswith("google.protobuf."):
                self._known[name] = json_format.MessageToDict  # the other well-known types: rare, and right
            else:
                table: dict[int, tuple[str, Encode | None]] = {}
                self._known[name] = functools.partial(_message, table)
                table.update({field.number: (field.json_name, self.field(field)) for field in descriptor.fields})
        return self._known[name]

    def field(self, field: FieldDescriptor) -> Encode | None:
        """Compile one field; None if its value is what JSON wants already."""
        one = self.single(field)
        if field.message_type and field.message_type.GetOptions().map_entry:
            entry = self.single(field.message_type.fields_by_name["value"]) or _same
            return lambda value: {_key(key): entry(value[key]) for key in value}
        if field.is_repeated:
            return (lambda values: [one(value) for value in values]) if one else list
        return one

    def single(self, field: FieldDescriptor) -> Encode | None:
        if field.message_type:
            return self.message(field.message_type)
        if field.enum_type:
            names = {value.number: value.name for value in field.enum_type.values}
            return lambda number: names.get(number, number)
        if field.cpp_type in {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}:
            return str
        if field.cpp_type in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
            return _float
        if field.type == FieldDescriptor.TYPE_BYTES:
            return lambda value: base64.b64encode(value).decode()
        return None


def _message(table: dict[int, tuple[str, Encode | None]], message: Message) -> dict[str, Any]:
    encoded: dict[str, Any] = {}
    for field, value in message.ListFields():
        name, encode = table[field.number]
        encoded[name] = encode(value) if encode else value
    return encoded


def _same(value: Any) -> Any:
    return value


def _key(key: Any) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)


def _float(value: float) -> Any:
    if value - value == 0:  # neither infinite nor NaN
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124 - how NaN is told


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


def _struct(value: Any) -> dict[str, Any]:
    fields = value.fields
    return {key: _value(fields[key]) for key in fields}


def _list(value: Any) -> list[Any]:
    return [_value(inner) for inner in value.values]


def _value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _struct(value.struct_value)
    if kind == "list_value":
        return _list(value.list_value)
    return None if kind is None or kind == "null_value" else getattr(value, kind)
