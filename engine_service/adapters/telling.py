"""What all adapters tell alike: what calls to models took, what a run answered, and what did not work."""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

from engine_service.runtime import failures
from engine_service.runtime.agent import Answer, ModelError, RunContext
from engine_service.runtime.asking import Reply
from engine_service.runtime.model_call import ModelCall

FAILED = "It did not work."
RESULT = {"result": {"type": "string", "title": "What it returns"}}
"""What is asked for where a person does what a tool would."""
DECLINED = "The user did not approve of it."
EXPIRED = "Nobody approved of it in time, which is no refusal."
"""What a model, and a user, reads of a tool that was not called."""


class ModelCalls:
    """A run's calls to models that have not ended, by whatever its framework knows them."""

    def __init__(self) -> None:
        self._open: dict[Hashable, ModelCall] = {}
        self._failed = False

    def failure(self, error: Exception) -> ModelError | None:
        """Say what went wrong with a model; None where none has failed, or was cut off: then it is no model's fault."""
        return failures.of_exception(error) if self._failed or self._open else None

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


class Cast:
    """The agents of one run where a conversation is handed on: the one that was asked, and others."""

    def __init__(self, context: RunContext, name: str) -> None:
        self._root = self._context = context
        self._name = name
        self.calls = ModelCalls()

    def context(self, name: str) -> RunContext:
        """Return an agent's context, which begins with it."""
        return self._root if name == self._name else self._root.sub_agents.begin(name)

    async def close(self) -> None:
        """Tell of all that are still at work that they are over."""
        await close(self._root, self.calls)


def refusal(reply: Reply) -> str:
    """Say why a tool is not called; nothing if it may be."""
    return {"declined": DECLINED, "expired": EXPIRED}.get(reply.outcome, "")


async def close(context: RunContext, calls: ModelCalls) -> None:
    """Tell of all that are still at work that they are over."""
    await calls.close()
    context.sub_agents.close(FAILED)
    context.tool_calls.close(FAILED)


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
