"""How many values a message has."""

import math

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from runwire.v1.engine_pb2 import RunRequest

from runwire import structs
from runwire.service.values import MAX_VALUES, ValuesError, count, fields, shape_of
from tests.support.messages import messages

REQUEST = shape_of(RunRequest.DESCRIPTOR)
STRUCT = shape_of(Struct.DESCRIPTOR)


def counted(plain: object) -> int:
    """Count by looking at the values themselves."""
    if isinstance(plain, dict):
        return len(plain) + sum(counted(inner) for inner in plain.values())
    return len(plain) + sum(counted(inner) for inner in plain) if isinstance(plain, list) else 0


@settings(deadline=None)
@given(messages(RunRequest.DESCRIPTOR))
async def test_every_request_is_counted_right(request: RunRequest) -> None:
    """Elements of lists and members of objects, at any depth, with the messages of the history."""
    expected = len(request.history) + counted(structs.struct(request.parameters))
    assert await count(request.SerializeToString(), REQUEST) == expected


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=60))
async def test_whatever_comes(data: bytes) -> None:
    """What is no message is refused as such, and what protobuf can read is counted."""
    try:
        Struct.FromString(data)
    except DecodeError:
        pass
    else:
        if b"\x0b" not in data and b"\x0c" not in data:  # groups, which nobody has written for twenty years
            try:
                await count(data, STRUCT)
            except ValuesError as error:
                assert "number" in str(error) or "read" in str(error)
    try:
        await count(data, STRUCT)
        list(fields(data))
    except ValuesError:
        pass


@pytest.mark.parametrize("many", [MAX_VALUES - 1, MAX_VALUES])
async def test_the_bound(many: int) -> None:
    """As many as may be are let through, one more is not: the list is one of them, too."""
    struct = Struct(fields={"a": Value(list_value=ListValue(values=[Value(null_value=0)] * many))})  # type: ignore[arg-type]
    if many < MAX_VALUES:
        assert await count(struct.SerializeToString(), STRUCT) == MAX_VALUES
    else:
        with pytest.raises(ValuesError, match="at most 10000 values"):
            await count(struct.SerializeToString(), STRUCT)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
async def test_numbers_that_json_has_no_word_for(number: float) -> None:
    """They are refused before anybody reads them."""
    with pytest.raises(ValuesError, match="no word for"):
        await count(Struct(fields={"a": Value(number_value=number)}).SerializeToString(), STRUCT)


@pytest.mark.parametrize(
    ("number", "text"),
    [(12.0, "12"), (-3.0, "-3"), (0.0, "0"), (-0.0, "-0.0"), (0.5, "0.5"), (2.0**60, "1.152921504606847e+18")],
)
def test_whole_numbers_are_integers(number: float, text: str) -> None:
    """What was an integer is one again, as far as a double can have been one."""
    assert str(structs.value(Value(number_value=number))) == text
