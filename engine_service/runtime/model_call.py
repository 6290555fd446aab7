"""A call to a model, by the clock."""

import time

from engine_service.runtime.agent import RunContext


class ModelCall:
    """A call to a model, from its beginning on."""

    def __init__(self, context: RunContext, model: str) -> None:
        self._context = context
        self._model = model
        self._began = time.monotonic()
        self._first_word: float | None = None

    def hear_word(self) -> None:
        """Hear that the model has said something."""
        if self._first_word is None:
            self._first_word = time.monotonic() - self._began

    async def end(self, model: str | None = None, **tokens: int) -> None:
        """Say that it has ended, what the model calls itself if that is known, and what it took."""
        elapsed = time.monotonic() - self._began
        await self._context.count(model or self._model, elapsed=elapsed, to_first_word=self._first_word, **tokens)
