"""What all adapters tell alike: what a call to a model took, what a run answered, and what did not work."""

import time
from collections.abc import Callable
from typing import Any

from engine_service.runtime.agent import Answer, RunContext

FAILED = "It did not work."


class ModelCall:
    """A call to a model, from its beginning on."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._began = time.monotonic()
        self._first_word: float | None = None

    def hear_word(self) -> None:
        """Hear that the model has said something."""
        if self._first_word is None:
            self._first_word = time.monotonic() - self._began

    async def count(self, context: RunContext, model: str | None = None, **tokens: int) -> None:
        """Say that it has ended, what the model calls itself if that is known, and what it took."""
        elapsed = time.monotonic() - self._began
        await context.count(model or self._model, elapsed=elapsed, to_first_word=self._first_word, **tokens)


def dumped(value: Any) -> Any:
    """Return a Pydantic model's values, and all else as it is."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def answer(output: Any, plain: Callable[[Any], Any] = dumped) -> Answer:
    """Make an answer of what an agent returned: text, or structured."""
    if output is None or isinstance(output, str):
        return Answer(output or "")
    values = plain(output)
    return Answer("", values if isinstance(values, dict) else {"output": values})
