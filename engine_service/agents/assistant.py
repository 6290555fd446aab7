"""A chat with any server that speaks as OpenAI's does: what most people have first."""

import json
import os
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import httpx2

from engine_service.runtime import failures
from engine_service.runtime.agent import Agent, ModelError, RunContext
from engine_service.runtime.model_call import ModelCall

MODEL = "ASSISTANT_MODEL"
OPENAI = "https://api.openai.com/v1"
PATIENCE = httpx2.Timeout(120, connect=10)
"""Seconds that a server may say nothing."""
REASONING = ("reasoning_content", "reasoning")
"""What servers call it."""
DATA, DONE = "data:", "[DONE]"

Chunk = Any
"""What a server says of its answer: JSON."""


class Assistant(Agent):
    """Talks with you."""

    client: ClassVar[httpx2.AsyncClient] = httpx2.AsyncClient(timeout=PATIENCE)
    """Made once, since it takes a while, and used by none before the fork: each run's process has its own."""

    async def run(self, context: RunContext, input: str) -> str:
        """Send what was said, and show what is answered."""
        said = [{"role": message.role, "content": message.text} for message in context.history]
        call = Call(context, os.environ[MODEL])
        try:
            async for chunk in _chunks(self.client, _body([*said, {"role": "user", "content": input}])):
                await call.hear(chunk)
            if call.is_refused:
                raise ModelError(failures.REFUSED)
        except httpx2.HTTPError as error:
            raise failures.of_exception(error) or ModelError(failures.BROKEN, retryable=True) from error
        except ValueError as error:  # it is no JSON
            raise ModelError(failures.CONFUSED, retryable=True) from error
        finally:
            await call.end()
        return call.said


class Call:
    """A call to the model, and what is answered."""

    def __init__(self, context: RunContext, model: str) -> None:
        self._context = context
        self._call = ModelCall(context, model)
        self._model: str | None = None
        self._usage: dict[str, Any] = {}
        self.said = ""
        self.is_refused = False

    async def hear(self, chunk: Chunk) -> None:
        """Take in a piece of the answer, and show it."""
        self._model = chunk.get("model") or self._model
        self._usage = chunk.get("usage") or self._usage
        if chunk.get("error"):
            raise ModelError(failures.BROKEN, retryable=True)
        choices: list[Any] = chunk.get("choices") or []
        for choice in choices:
            delta: dict[str, str | None] = choice.get("delta") or {}
            self.is_refused |= choice.get("finish_reason") == "content_filter" or bool(delta.get("refusal"))
            thought = next(filter(None, map(delta.get, REASONING)), "")
            word = delta.get("content") or ""
            if thought or word:
                self._call.hear_word()
            if thought:
                await self._context.think(thought)
            if word:
                self.said += word
                await self._context.say(word)

    async def end(self) -> None:
        """Say what it took."""
        details: dict[str, int] = self._usage.get("prompt_tokens_details") or {}
        await self._call.end(
            self._model,
            input_tokens=self._usage.get("prompt_tokens") or 0,
            output_tokens=self._usage.get("completion_tokens") or 0,
            cached_input_tokens=details.get("cached_tokens") or 0,
        )


def _body(messages: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "model": os.environ[MODEL], "messages": messages, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


async def _chunks(client: httpx2.AsyncClient, body: dict[str, Any]) -> AsyncIterator[Chunk]:
    """Ask, and give out the pieces of the answer. Raises ModelError and HTTPError."""
    url = f"{(os.environ.get('OPENAI_BASE_URL') or OPENAI).rstrip('/')}/chat/completions"
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with client.stream("POST", url, json=body, headers=headers) as answer:
        if not answer.is_success:
            raise failures.of_status(answer.status_code, failures.retry_after(answer.headers))
        finished = False
        async for line in answer.aiter_lines():
            if not line.startswith(DATA):
                continue
            data = line[len(DATA) :].strip()
            finished |= data == DONE
            if data != DONE:
                yield json.loads(data)
    if not finished:
        raise ModelError(failures.BROKEN, retryable=True)
