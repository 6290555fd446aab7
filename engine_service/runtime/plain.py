"""Whatever user code hands over, as the plain values that JSON and `google.protobuf.Struct` can hold."""

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, cast

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value

from runwire import structs

MAX_DEPTH = 24
"""Levels of dicts and lists. Each takes three of the hundred that a reader of protobuf follows."""

EXACT = 2**53
"""Integers up to here survive as the doubles that Struct and JavaScript make of them."""


def text(anything: object) -> str:
    """Return text that UTF-8 can carry: what it can't (half a surrogate pair) becomes a question mark."""
    string = str(anything)
    return string if string.isascii() else string.encode(errors="replace").decode()


def struct(mapping: Mapping[str, Any]) -> Struct:
    """Build a Struct."""
    return ParseDict(plain(mapping), Struct())


def value(anything: Any) -> Value:
    """Build a Value."""
    return ParseDict(plain(anything), Value())


def parameters(encoded: bytes) -> dict[str, Any]:
    """Read a Struct as it travels."""
    return structs.struct(Struct.FromString(encoded))


def plain(anything: Any, depth: int = MAX_DEPTH) -> Any:
    """Reduce to dict, list, str, float, int, bool and None. What has no plain form, or lies too deep, is text."""
    if anything is None or isinstance(anything, bool):
        return anything
    if isinstance(anything, int):
        return int(anything) if abs(anything) <= EXACT else str(int(anything))
    if isinstance(anything, float):
        return float(anything) if math.isfinite(anything) else str(anything)
    if depth and isinstance(anything, Mapping):
        return {text(key): plain(inner, depth - 1) for key, inner in cast("Any", anything).items()}
    if depth and isinstance(anything, list | tuple | AbstractSet):
        return [plain(inner, depth - 1) for inner in cast("list[Any]", anything)]
    return text(anything)


def is_plain(anything: Any, depth: int = MAX_DEPTH) -> bool:
    """Tell whether something is shown as what it is: nothing of it would become text, or less."""
    if isinstance(anything, Mapping):
        items = cast("Any", anything).items()
        return depth > 0 and all(isinstance(key, str) and is_plain(inner, depth - 1) for key, inner in items)
    if isinstance(anything, list | tuple):
        return depth > 0 and all(is_plain(inner, depth - 1) for inner in cast("list[Any]", anything))
    same = plain(anything)
    return type(same) is type(anything) and same == anything and (not isinstance(same, str) or text(same) == same)
