"""What all adapters tell alike: what calls to models took, what a run answered, and what did not work."""

import dataclasses
import time
from collections.abc import Callable, Hashable
from typing import Any

from engine_service.runtime.agent import Answer, RunContext

FAILED = "It did not work."


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


class ModelCalls:
    """A run's calls to models that have not ended, by whatever its framework knows them."""

    def __init__(self) -> None:
        self._open: dict[Hashable, ModelCall] = {}
        self._failed = False

    @property
    def have_failed(self) -> bool:
        """Whether one has failed, or was cut off: what goes wrong elsewhere is no model's fault."""
        return self._failed or bool(self._open)

    def begin(self, key: Hashable, context: RunContext, model: str) -> None:
        """Hear that a model is called."""
        self._open[key] = ModelCall(context, model)

    def hear_word(self, key: Hashable) -> None:
        """Hear that it has said something."""
        if key in self._open:
            self._open[key].hear_word()

    def is_open(self, key: Hashable) -> bool:
        """Tell whether a call goes on."""
        return key in self._open

    async def end(self, key: Hashable, model: str | None = None, **tokens: int) -> None:
        """Hear that a call has ended, well or not."""
        if call := self._open.pop(key, None):
            await call.end(model, **tokens)

    async def fail(self, key: Hashable) -> None:
        """Hear that a call has failed."""
        self._failed = True
        await self.end(key)

    async def close(self) -> None:
        """Hear that nothing goes on any more: what was cut off was a call, too, of which only its time is known."""
        for key in tuple(self._open):
            await self.end(key)


def dumped(value: Any) -> Any:
    """Return the values of a Pydantic model, or of a dataclass, and all else as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def answer(output: Any, plain: Callable[[Any], Any] = dumped) -> Answer:
    """Make an answer of what an agent returned: text, or structured."""
    if output is None or isinstance(output, str):
        return Answer(output or "")
    values = plain(output)
    return Answer("", values if isinstance(values, dict) else {"output": values})
