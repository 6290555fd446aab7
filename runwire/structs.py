"""A `google.protobuf.Struct` as plain values. It knows doubles alone: whole ones are told as the integers they were."""

from typing import Any

EXACT = 2.0**53
"""Up to here each integer has a double of its own."""


def struct(message: Any) -> dict[str, Any]:
    """Return a Struct's values."""
    fields = message.fields
    return {key: value(fields[key]) for key in fields}


def items(message: Any) -> list[Any]:
    """Return a ListValue's values."""
    return [value(inner) for inner in message.values]


def value(message: Any) -> Any:
    """Return a Value's value."""
    kind = message.WhichOneof("kind")
    if kind == "number_value":
        return _number(message.number_value)
    if kind == "struct_value":
        return struct(message.struct_value)
    if kind == "list_value":
        return items(message.list_value)
    return None if kind is None or kind == "null_value" else getattr(message, kind)


def _number(number: float) -> float:
    """Return 12 for 12.0. What is negative and nothing is no integer."""
    if number.is_integer() and -EXACT <= number <= EXACT and (number or str(number) == "0.0"):
        return int(number)
    return number
