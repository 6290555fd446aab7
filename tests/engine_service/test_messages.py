"""Messages between processes: what is written is read again, and what is otherwise means nothing."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_service.messages import Codec, NonsenseError


@dataclass(frozen=True)
class Inner:
    word: Literal["a", "b"]
    many: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outer:
    inner: Inner
    share: float
    names: list[str]
    by_name: dict[str, int]
    perhaps: Inner | None = None
    left: int | None = None
    is_so: bool = False


@dataclass(frozen=True)
class Other:
    text: str


CODEC = Codec[Outer | Other](Outer, Other)

INNER = st.builds(Inner, st.sampled_from(("a", "b")), st.lists(st.integers(), max_size=3).map(tuple))
MESSAGES: st.SearchStrategy[Outer | Other] = st.one_of(
    st.builds(Other, st.text("ab\u0000é", max_size=5)),
    st.builds(
        Outer,
        INNER,
        st.floats(allow_nan=False, allow_infinity=False),
        st.lists(st.sampled_from("xyz"), max_size=3),
        st.dictionaries(st.sampled_from("xyz"), st.integers()),
        st.none() | INNER,
        st.none() | st.integers(),
        st.booleans(),
    ),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(("a", "Other", "text", "")),
    lambda each: (
        st.lists(each, max_size=3)
        | st.dictionaries(st.sampled_from(("inner", "word", "text", "names")), each, max_size=3)
    ),
    max_leaves=8,
)


@given(MESSAGES)
def test_there_and_back(message: Outer | Other) -> None:
    """What is written is read as it was."""
    assert CODEC.read(CODEC.written(message)) == message


@given(VALUES)
def test_whatever_is_said(said: Any) -> None:
    """Whatever else is said means nothing, or is a message, each field of which is of its type."""
    for data in (json.dumps(said), json.dumps(["Other", said]), json.dumps(["Outer", said])):
        try:
            message = CODEC.read(data.encode())
        except NonsenseError:
            continue
        assert isinstance(message, Other)
        assert isinstance(message.text, str)


@pytest.mark.parametrize(
    "said",
    [
        '["Other", {"text": 1}]',
        '["Other", {"text": "a", "more": 1}]',
        '["Other", {}]',
        '["Nobody", {}]',
        '["Outer", {"inner": {"word": "c"}, "share": 1, "names": [], "by_name": {}}]',
        '["Outer", {"inner": {"word": "a", "many": [true]}, "share": 1, "names": [], "by_name": {}}]',
        '["Outer", {"inner": {"word": "a"}, "share": true, "names": [], "by_name": {}}]',
        '["Outer", {"inner": {"word": "a"}, "share": 1, "names": [1], "by_name": {}}]',
        '["Outer", {"inner": {"word": "a"}, "share": 1, "names": [], "by_name": {"a": "b"}}]',
        '["Outer", {"inner": {"word": "a"}, "share": 1, "names": [], "by_name": {}, "left": "b"}]',
        "[" * 100_000,
        "\xff",
        "",
    ],
)
def test_what_means_nothing(said: str) -> None:
    """A field of another type, one too many, one too few: nothing of it is believed."""
    with pytest.raises(NonsenseError):
        CODEC.read(said.encode("latin-1"))
