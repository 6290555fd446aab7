"""What answers and parameters have to look like, as authors say it, as it travels, and as it is checked."""

from collections.abc import Callable, Mapping
from typing import Any, cast

MAX_FIELDS = 64

KINDS = {"string": "text", "number": "a number", "integer": "a whole number", "boolean": "true or false"}
ABOUT = {"type", "enum", "title", "description", "default", "format"}
"""What a field may say that is checked by its kind, or is for whoever draws a form."""
BOUNDS: dict[str, tuple[set[str], Callable[[Any, Any], bool], str]] = {
    "minimum": ({"number", "integer"}, lambda value, bound: value >= bound, "must be at least {}"),
    "maximum": ({"number", "integer"}, lambda value, bound: value <= bound, "must be at most {}"),
    "minLength": ({"string"}, lambda value, bound: len(value) >= bound, "must have at least {} characters"),
    "maxLength": ({"string"}, lambda value, bound: len(value) <= bound, "must have at most {} characters"),
}

LENGTHS = {"minLength", "maxLength"}
MAX_LENGTH = 2**31
"""Characters that a form's field can be told to take: browsers know no more."""


class SchemaError(ValueError):
    """A schema that is none, or asks for what a form cannot have."""


class Schema:
    """The fields that an answer has: text, numbers, yes or no, or one of some values."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Take one as it travels. Raises SchemaError."""
        fields, required = document.get("properties", {}), document.get("required", [])
        known = {"type", "properties", "required", "title", "description"}
        if document.get("type") != "object" or not set(document) <= known or not isinstance(fields, Mapping):
            raise SchemaError("a schema has the type 'object', properties, and which of them are required")
        names: list[Any] = list(cast("list[Any]", required)) if isinstance(required, list | tuple) else [None]
        if not all(isinstance(name, str) and name in fields for name in names):
            raise SchemaError("what is required has to be a list of names of properties")
        self._fields = cast("Mapping[str, Mapping[str, Any]]", fields)
        self._required: list[str] = names
        if len(self._fields) > MAX_FIELDS:
            raise SchemaError(f"a form has at most {MAX_FIELDS} fields")
        for name, field in self._fields.items():
            _check(name, field)
        self.document = document

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> "Schema":
        """Take one as authors write it."""
        return cls(travelling(written))

    def violations(self, content: Mapping[str, Any]) -> dict[str, str]:
        """Say what is wrong with an answer, field by field."""
        missing = {name: "is missing" for name in self._required if name not in content}
        given = {name: _violation(self._fields.get(name), value) for name, value in content.items()}
        return missing | {name: sentence for name, sentence in given.items() if sentence}


class ParametersSchema:
    """What an agent's callers may send along: any JSON Schema of an object, checked as far as a form would be."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Take one as it travels. Raises SchemaError."""
        properties, required = document.get("properties", {}), document.get("required", [])
        is_object = document.get("type", "object") == "object"  # one that refers to another says nothing of it here
        if not is_object or not isinstance(properties, Mapping) or not isinstance(required, list):
            raise SchemaError("it has the type 'object', properties, and which of them are required")
        self._fields = cast("Mapping[str, Any]", properties)
        self._required = [name for name in required if isinstance(name, str)]
        self._is_closed = document.get("additionalProperties") is False
        self.document = dict(document)

    def violations(self, parameters: Mapping[str, Any]) -> dict[str, str]:
        """Say what is wrong with parameters, one by one. What isn't declared is for the agent to know."""
        missing = {name: "is missing" for name in self._required if name not in parameters}
        given = {name: self._violation(name, value) for name, value in parameters.items()}
        return missing | {name: sentence for name, sentence in given.items() if sentence}

    def _violation(self, name: str, value: Any) -> str:
        if name not in self._fields:
            return "is not asked for" if self._is_closed else ""
        return _violation_as_far_as_known(self._fields[name], value)


def _violation_as_far_as_known(field: Any, value: Any) -> str:
    """Say what is wrong with a value by the words that a form has; others are for the agent to know."""
    if not isinstance(field, Mapping):
        return ""
    about = cast("Mapping[str, Any]", field)
    kind, choices = about.get("type"), about.get("enum")
    if isinstance(kind, str) and kind in KINDS:
        known = {word: bound for word, bound in about.items() if _is_bound(word, bound, kind)}
        return _violation({"type": kind} | known, value) or _not_among(choices, value)
    return _not_among(choices, value)


def _is_bound(word: str, bound: Any, kind: str) -> bool:
    return word in BOUNDS and kind in BOUNDS[word][0] and _is(bound, "number")


def _not_among(choices: Any, value: Any) -> str:
    if not isinstance(choices, list):
        return ""
    known: list[Any] = choices
    return "" if any(_is_same(choice, value) for choice in known) else f"must be one of {', '.join(map(str, known))}"


def _is_same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same in JSON, where True is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def travelling(written: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema as it travels: authors write that, or its properties alone, which are all required then."""
    if all(isinstance(field, Mapping) and _says_what_it_is(cast("Any", field)) for field in written.values()):
        return {"type": "object", "properties": written, "required": list(written)}
    return written


def _says_what_it_is(field: Mapping[str, Any]) -> bool:
    return isinstance(field.get("type"), str | list) or isinstance(field.get("enum"), list | tuple) or "anyOf" in field


def _check(name: str, field: Any) -> None:
    """Raise SchemaError for a field that a form cannot have."""
    if not name or not isinstance(field, Mapping):
        raise SchemaError("a form's fields have names, and each says of which type it is")
    about = cast("Mapping[str, Any]", field)
    kind = _kind(about)
    if kind not in KINDS:
        raise SchemaError(f"{name}: a field's type is one of {', '.join(KINDS)}")
    for word, bound in about.items():
        if word not in ABOUT and not (word in BOUNDS and kind in BOUNDS[word][0]):
            raise SchemaError(f"{name}: a form has no {word!r} for {kind!r}")
        if word in BOUNDS and not _is(bound, "number"):
            raise SchemaError(f"{name}: {word!r} has to be a number")
        if word in LENGTHS and not (_is(bound, "integer") and 0 <= bound < MAX_LENGTH):
            raise SchemaError(f"{name}: {word!r} has to be a whole number of characters")
    choices = about.get("enum", ["any"])
    if not isinstance(choices, list | tuple) or not choices:
        raise SchemaError(f"{name}: 'enum' has to be a list of what may be chosen")
    if "enum" in about and not all(_is(choice, kind) for choice in cast("list[Any]", choices)):
        raise SchemaError(f"{name}: what may be chosen has to be {KINDS[kind]}")


def _violation(field: Mapping[str, Any] | None, value: Any) -> str:
    """Say what is wrong with one field's value; nothing if it is as it should be."""
    if field is None:
        return "is not asked for"
    if not _is(value, kind := _kind(field)):
        return f"must be {KINDS[kind]}"
    if "enum" in field and value not in field["enum"]:
        return f"must be one of {', '.join(map(str, field['enum']))}"
    for word, (_, is_kept, sentence) in BOUNDS.items():
        if word in field and not is_kept(value, field[word]):
            return sentence.format(field[word])
    return ""


def _kind(field: Mapping[str, Any]) -> str:
    """Return a field's type; of one that says only what may be chosen, that of text."""
    return str(field.get("type", "string" if "enum" in field else None))


def _is(value: Any, kind: str) -> bool:
    """Tell whether a value is of a kind. True and False are no numbers here."""
    if kind in {"number", "integer"}:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and (kind == "number" or isinstance(value, int) or value.is_integer())
    return isinstance(value, str if kind == "string" else bool)
