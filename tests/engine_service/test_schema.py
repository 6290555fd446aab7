"""What answers and parameters have to look like."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_service.schema import MAX_FIELDS, ParametersSchema, Schema, SchemaError, travelling

SIZES = {"size": {"enum": ["S", "M"]}}


@pytest.mark.parametrize(
    ("field", "right", "wrong"),
    [
        ({"type": "string"}, ["", "a"], [1, True, None, ["a"]]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "abc"], ["a", "abcd"]),
        ({"type": "integer", "minimum": 1, "maximum": 3}, [1, 2.0, 3], [0, 4, 1.5, True, "1"]),
        ({"type": "number", "minimum": 0.5}, [0.5, 7], [0, False, "7"]),
        ({"type": "boolean"}, [True, False], [1, 0, "true"]),
        ({"type": "integer", "enum": [1, 2]}, [1, 2.0], [3, "1"]),
        (SIZES["size"], ["S"], ["L", 1]),
    ],
)
def test_a_field(field: dict[str, Any], right: list[Any], wrong: list[Any]) -> None:
    """What is right is taken, and what is wrong is named."""
    schema = Schema.of({"it": field})
    for value in right:
        assert schema.violations({"it": value}) == {}
    for value in wrong:
        assert list(schema.violations({"it": value})) == ["it"]


def test_what_is_missing_and_what_is_too_much() -> None:
    """A short form requires all that it has; a whole one says what is required."""
    assert Schema.of(SIZES).violations({"more": 1}) == {"size": "is missing", "more": "is not asked for"}
    whole = Schema.of({"type": "object", "properties": {**SIZES, "why": {"type": "string"}}, "required": ["size"]})
    assert whole.violations({"size": "S"}) == {}
    assert Schema.of({"type": {"type": "string"}}).violations({"type": "it is a name, too"}) == {}


@pytest.mark.parametrize(
    "written",
    [
        {"type": "array"},
        {"type": "object", "properties": [], "required": []},
        {"type": "object", "properties": SIZES, "required": ["other"]},
        {"type": "object", "properties": SIZES, "additionalProperties": True},
        {"it": "string"},
        {"it": {}},
        {"": {"type": "string"}},
        {"it": {"type": "object", "properties": {}}},
        {"it": {"type": "string", "pattern": "a+"}},
        {"it": {"type": "string", "minimum": 1}},
        {"it": {"type": "string", "maxLength": 2**31}},
        {"it": {"type": "string", "minLength": -1}},
        {"it": {"type": "string", "minLength": 1.5}},
        {"it": {"type": "number", "minimum": "1"}},
        {"it": {"type": "string", "enum": []}},
        {"it": {"type": "string", "enum": ["a", 1]}},
        {str(number): {"type": "string"} for number in range(MAX_FIELDS + 1)},
    ],
)
def test_what_no_form_has(written: dict[str, Any]) -> None:
    """What nobody would check is not asked for."""
    with pytest.raises(SchemaError):
        Schema.of(written)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(st.sampled_from(["type", "properties", "required", "a"]), JSON), st.dictionaries(st.text(), JSON)
)
def test_nothing_else_is_raised(written: dict[str, Any], content: dict[str, Any]) -> None:
    """Whatever is a schema says what is wrong with whatever is answered; what is none is a SchemaError."""
    try:
        schema = Schema.of(written)
    except SchemaError:
        return
    assert all(isinstance(sentence, str) for sentence in schema.violations(content).values())


def test_parameters_are_checked_as_far_as_a_form_is() -> None:
    """What is declared as a form's field is checked; what is declared otherwise, or isn't, is for the agent to know."""
    document = {
        "type": "object",
        "title": "As pydantic writes it",
        "properties": {
            "pace": {"type": "number", "minimum": 0},
            "tags": {"type": "array", "items": {"type": "string"}},
            "other": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "seats": {"type": "integer", "exclusiveMinimum": 0, "maximum": 9, "examples": [2]},
            "level": {"enum": [1, 2, "x"]},
            "void": None,
        },
        "required": ["pace"],
    }
    schema = ParametersSchema(document)
    wrong = {"pace": 1, "seats": "two", "level": True, "void": 1}
    assert list(schema.violations(wrong)) == ["seats", "level"]
    assert list(schema.violations({"pace": 1, "seats": 10, "level": 2})) == ["seats"]
    assert schema.violations({"pace": 1, "tags": ["a"], "other": None, "more": {}}) == {}
    assert schema.violations({"pace": -1, "tags": 7}) == {"pace": "must be at least 0"}
    assert schema.violations({}) == {"pace": "is missing"}
    closed = ParametersSchema({**document, "additionalProperties": False})
    assert closed.violations({"pace": 1, "more": 2}) == {"more": "is not asked for"}


def test_schemas_as_others_write_them() -> None:
    """What refers to another schema is one, and properties alone are those that say what they are."""
    recursive = {"$defs": {"Node": {"type": "object", "properties": {}}}, "$ref": "#/$defs/Node"}
    assert travelling(recursive) is recursive
    assert ParametersSchema(recursive).violations({"name": "a"}) == {}
    bare = {"properties": {"x": {"type": "string"}}}
    assert ParametersSchema(travelling(bare)).violations({"x": 1}) == {"x": "must be text"}
    assert travelling({"properties": {"type": "string"}})["required"] == ["properties"]


@pytest.mark.parametrize("document", [{"type": "array"}, {"type": "object", "properties": []},
                                      {"type": "object", "required": "a"}])  # fmt: skip
def test_what_is_no_schema_of_parameters(document: dict[str, Any]) -> None:
    """Parameters are an object."""
    with pytest.raises(SchemaError):
        ParametersSchema(document)


@given(
    st.dictionaries(st.sampled_from(["type", "properties", "required", "additionalProperties"]), JSON),
    st.dictionaries(st.text(), JSON),
)
def test_nothing_else_is_raised_of_parameters(written: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Whatever an author declares says what is wrong with whatever is sent, or is a SchemaError."""
    try:
        schema = ParametersSchema({**written, "type": "object"})
    except SchemaError:
        return
    assert all(isinstance(sentence, str) for sentence in schema.violations(parameters).values())
