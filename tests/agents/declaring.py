"""Agents that say what may be sent along."""

import json

from engine_service import Agent, RunContext


class Booking(Agent):
    """Says what was sent along."""

    parameters_schema = {
        "type": "object",
        "properties": {
            "seats": {"type": "integer", "minimum": 1, "maximum": 9, "default": 2},
            "row": {"type": "string", "enum": ["front", "back"], "title": "Which row"},
            "quiet": {"type": "boolean", "default": True},
            "names": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["seats"],
    }

    async def run(self, context: RunContext, input: str) -> str:
        """Say it."""
        return json.dumps(dict(context.parameters), sort_keys=True)


class BookingTask(Booking):
    """Does so in the engine's process, and says in short what it takes."""

    isolation = "task"
    parameters_schema = {"seats": {"type": "integer"}}
