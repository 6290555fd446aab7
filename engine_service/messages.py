"""Messages between processes: dataclasses, as JSON, each field of which is what its type says.

Read so by whoever doesn't believe the other side: agents' code may be there, and say what it likes.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

Message = TypeVar("Message")


class NonsenseError(Exception):
    """What another process said means nothing."""


class Codec(Generic[Message]):
    """Writes and reads messages of these kinds."""

    def __init__(self, *kinds: type[Message]) -> None:
        self._kinds: Mapping[str, type[Message]] = {kind.__name__: kind for kind in kinds}

    def written(self, message: Message) -> bytes:
        """Write a message."""
        about: Any = message
        return json.dumps([type(message).__name__, asdict(about)], ensure_ascii=False).encode(errors="replace")

    def read(self, data: bytes) -> Message:
        """Read one. Raises NonsenseError."""
        try:
            name, fields = json.loads(data)
            message: Message = _value(self._kinds[name], fields)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise NonsenseError(str(error)[:200]) from error
        return message


def _value(kind: Any, value: Any) -> Any:
    """Return what a JSON value means that is to be of a type. Raises TypeError where it is not."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal and value in arguments:
        meant = value
    elif origin is UnionType:  # with None
        meant = None if value is None else _value(next(each for each in arguments if each is not NoneType), value)
    elif is_dataclass(kind) and type(value) is dict:
        made: Any = kind
        meant = made(**{name: _value(_types(made)[name], each) for name, each in value.items()})
    elif origin in {tuple, list} and type(value) is list:  # of any length
        values: list[Any] = [_value(arguments[0], each) for each in value]
        meant = tuple(values) if origin is tuple else values
    elif origin is dict and type(value) is dict:
        named: dict[str, Any] = value
        meant = {name: _value(arguments[1], each) for name, each in named.items()}
    elif kind is float and type(value) in {float, int}:
        meant = float(value)
    elif kind is Any or type(value) is kind:
        meant = value
        if isinstance(value, str):
            value.encode()  # or whoever writes it down again would be who fails
    else:
        raise TypeError(f"{value!r} is no {kind}"[:100])
    return meant


@functools.cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
