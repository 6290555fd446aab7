"""Whatever user code hands over, as plain values."""

import datetime
import json

from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from engine_service.runtime.plain import plain, struct, text, value

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.sets(st.integers()) | st.dictionaries(st.integers() | st.text(), inner),
    max_leaves=8,
)


@given(ANYTHING)
def test_anything_becomes_a_value_that_json_can_hold(anything: object) -> None:
    """There is nothing that a tool returns that could not be shown."""
    json.loads(json_format.MessageToJson(value(anything)))


def test_what_json_has_no_word_for() -> None:
    """It is shown as text, and integers that a double would bend are, too."""
    assert plain({1: datetime.date(2026, 11, 21), "big": 2**60, "nan": float("nan"), "set": {1}}) == {
        "1": "2026-11-21", "big": str(2**60), "nan": "nan", "set": [1],
    }  # fmt: skip
    assert text("half \ud800") == "half ?"
    assert struct({"a": None})["a"] is None
