"""What servers of tools ask for, as a form."""

from typing import Any

import pytest

from engine_service.adapters.elicitation import shown
from engine_service.schema import Schema, SchemaError


def fields(required: list[str] | None = None, **properties: Any) -> Any:
    schema = {"$schema": "x", "type": "object", "properties": properties, "additionalProperties": False}
    return Schema(shown(schema | ({} if required is None else {"required": required}))).document["properties"]


@pytest.mark.parametrize(
    ("field", "form"),
    [
        ({"type": "string", "format": "email", "pattern": "@"}, {"type": "string", "format": "email"}),
        ({"type": "integer", "minimum": 1, "exclusiveMaximum": 9}, {"type": "integer", "minimum": 1}),
        ({"type": "boolean", "default": True, "minLength": 1}, {"type": "boolean", "default": True}),
        ({"type": "string", "default": None}, {"type": "string"}),
        (
            {"type": "string", "enum": ["s", "m"], "enumNames": ["small", "medium"]},
            {"type": "string", "enum": ["s", "m"]},
        ),
        (
            {"type": "string", "oneOf": [{"const": "s", "title": "small"}, {"const": "m", "title": "medium"}]},
            {"type": "string", "enum": ["s", "m"]},
        ),
        ({"type": ["string", "null"], "maxLength": 3}, {"type": "string", "maxLength": 3}),
        ({"anyOf": [{"type": "number"}, {"type": "null"}], "title": "Tip"}, {"type": "number", "title": "Tip"}),
    ],
)
def test_a_field(field: dict[str, Any], form: dict[str, Any]) -> None:
    """A form has what a form can have; the rest is the server's to check."""
    assert fields(x=field) == {"x": form}


def test_what_no_form_has() -> None:
    """What may be left out is left out; what is required makes it no form, and the server hears that."""
    many = {"type": "array", "items": {"type": "string"}}
    either = {"anyOf": [{"type": "number"}, {"type": "string"}]}
    assert fields(many=many, either=either, one={"type": "string"}) == {"one": {"type": "string"}}
    odd: Any = True
    for wanted in (many, either, odd, {"oneOf": [{"title": "no value"}]}, {"type": ["string", "number"]}):
        with pytest.raises(SchemaError):
            fields(["wanted"], wanted=wanted)
