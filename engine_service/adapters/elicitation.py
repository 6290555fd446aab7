"""Servers of tools (MCP) that ask their user in the middle of a call."""

import importlib
from collections.abc import Mapping
from typing import Any

from engine_service.runtime.agent import RunContext
from engine_service.schema import ABOUT, BOUNDS, KINDS

ACTIONS = {"accepted": "accept", "declined": "decline", "expired": "cancel"}


async def settle(context: RunContext, params: Any) -> Any:
    """Ask a run's user what a server wants to know, and return what it is to hear. Raises ValueError.

    Only where a run has its process to itself: elsewhere several users' runs share what is connected to the server.
    """
    asked = params.model_dump(by_alias=True, mode="json")
    message, schema = asked["message"], asked.get("requestedSchema")
    if url := asked.get("url"):  # to be opened, and confirmed
        message = f"{message}\n{url}"
    reply = await context.questions.ask(message, schema and form(schema), is_halted=context.questions.is_in_one_call)
    action = ACTIONS[reply.outcome]
    content = dict(reply.content) if schema and reply.is_accepted else None
    return importlib.import_module("mcp.types").ElicitResult(action=action, content=content)


def form(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a server's schema as a form: what is more than that, the server looks at itself."""
    fields = {name: _field(field) for name, field in schema.get("properties", {}).items()}
    required = schema.get("required", [])
    shown = {name: field for name, field in fields.items() if name in required or field.get("type") in KINDS}
    return {"type": "object", "properties": shown, "required": required}


def _field(field: Mapping[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in field.get("anyOf", ()) if kind.get("type") != "null"]
    about = {**field, **kinds[0]} if len(kinds) == 1 else dict(field)  # one that may be left out
    if titled := about.get("oneOf"):
        about["enum"] = [each["const"] for each in titled]
    kind = about.get("type")
    known = {word for word, (kinds, *_) in BOUNDS.items() if kind in kinds} | ABOUT
    return {word: value for word, value in about.items() if word in known and value is not None}
