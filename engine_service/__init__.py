"""Runs agents in contexts of their own, and streams what they do. What an agent's author imports is here."""

from engine_service.runtime.agent import (
    Agent,
    AgentError,
    Answer,
    Declined,
    Expired,
    Message,
    ModelError,
    RunContext,
)
from engine_service.runtime.asking import Reply
from engine_service.runtime.attempt import Interrupted

__all__ = [
    "Agent",
    "AgentError",
    "Answer",
    "Declined",
    "Expired",
    "Interrupted",
    "Message",
    "ModelError",
    "Reply",
    "RunContext",
]
