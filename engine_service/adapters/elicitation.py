"""Servers of tools (MCP) that ask their user in the middle of a call."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from engine_service.runtime.agent import RunContext
from engine_service.schema import ABOUT, BOUNDS, KINDS, SchemaError

CALLBACK = "elicitation_callback"
ACTIONS = {"accepted": "accept", "declined": "decline", "expired": "cancel"}
INVALID = -32602
NOBODY = "There is nobody to ask."


class Asker:
    """What a client of a server asks: the user of whoever uses it now.

    Only where a run has its process to itself: elsewhere several users' runs share what is connected to the server. A
    connection may outlive the agent that made it, and the next one uses it.
    """

    def __init__(self, patience: float | None) -> None:
        self._patience = patience
        self._users: list[Callable[[], RunContext]] = []

    def begin(self, user: Callable[[], RunContext]) -> None:
        """Hear that an agent uses it, whose context that gives."""
        self._users.append(user)

    def end(self, user: Callable[[], RunContext]) -> None:
        """Hear that one does no longer."""
        self._users.remove(user)

    async def __call__(self, _: object, params: Any) -> Any:
        """Ask what a server wants to know, and return what it is to hear."""
        types = importlib.import_module("mcp.types")
        if not self._users:
            return types.ErrorData(code=INVALID, message=NOBODY)
        asked = params.model_dump(by_alias=True, mode="json")
        message, schema = asked["message"], asked.get("requestedSchema")
        if url := asked.get("url"):  # to be opened, and confirmed
            message = f"{message}\n{url}"
        try:
            form = schema and shown(schema)
            reply = await self._users[-1]().questions.ask_for_a_tool(message, form, self._patience)
        except ValueError as error:
            return types.ErrorData(code=INVALID, message=str(error))
        content = dict(reply.content) if schema and reply.is_accepted else None
        return types.ElicitResult(action=ACTIONS[reply.outcome], content=content)


def reach(options: dict[str, Any], patience: float | None) -> Asker | None:
    """Let a server ask, by what its client is made with; None where its author has said who is asked."""
    asker = options.get(CALLBACK)
    if asker is None:
        asker = options[CALLBACK] = Asker(patience)
    return asker if isinstance(asker, Asker) else None


def shown(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a server's schema as a form: what is more than that, the server looks at itself. Raises SchemaError."""
    try:
        fields = {name: _field(field) for name, field in schema.get("properties", {}).items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise SchemaError("a form's fields have names, and each says of which type it is") from error
    required = schema.get("required", [])
    kept = {name: field for name, field in fields.items() if name in required or field.get("type") in KINDS}
    return {"type": "object", "properties": kept, "required": required}


def _field(field: Mapping[str, Any]) -> dict[str, Any]:
    about = dict(field)
    kinds = about.get("anyOf") or [{"type": kind} for kind in _several(about.get("type"))]
    kinds = [kind for kind in kinds if kind.get("type") != "null"]
    if len(kinds) == 1:  # and it may be left out
        about |= kinds[0]
    if titled := about.get("oneOf"):
        about["enum"] = [each["const"] for each in titled]
    kind = about["type"] = about["type"] if isinstance(about.get("type"), str) else None
    known = {word for word, (kinds, *_) in BOUNDS.items() if kind in kinds} | ABOUT
    return {word: value for word, value in about.items() if word in known and value is not None}


def _several(kind: object) -> list[Any]:
    return kind if isinstance(kind, list) else []
