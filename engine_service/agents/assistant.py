"""A chat with any server that speaks as OpenAI's does: what most people have first."""

import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import httpx2

from engine_service.runtime import failures
from engine_service.runtime.agent import Agent, ModelError, RunContext

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

    isolation = "process"
    client: ClassVar[httpx2.AsyncClient] = httpx2.AsyncClient(timeout=PATIENCE)
    """Made once, since it takes a while, and used by none before the fork: each run's process has its own."""

    async def run(self, context: RunContext, input: str) -> str:
        """Send what was said, and show what is answered."""
        said = [{"role": message.role, "content": message.text} for message in context.history]
        call = Call(os.environ[MODEL])
        try:
            async for chunk in _chunks(self.client, _body([*said, {"role": "user", "content": input}])):
                await call.hear(context, chunk)
            if call.is_refused:
                raise ModelError(failures.REFUSED)
        except httpx2.HTTPError as error:
            raise failures.of_exception(error) or ModelError(failures.BROKEN, retryable=True) from error
        except ValueError as error:  # it is no JSON
            raise ModelError(failures.CONFUSED, retryable=True) from error
        finally:
            await call.count(context)
        return call.said


class Call:
    """A call to the model, from its beginning on."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._began = time.monotonic()
        self._first_word: float | None = None
        self._usage: dict[str, Any] = {}
        self.said = ""
        self.is_refused = False

    async def hear(self, context: RunContext, chunk: Chunk) -> None:
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
            if self._first_word is None and (thought or word):
                self._first_word = time.monotonic() - self._began
            if thought:
                await context.think(thought)
            if word:
                self.said += word
                await context.say(word)

    async def count(self, context: RunContext) -> None:
        """Say what it took."""
        details: dict[str, int] = self._usage.get("prompt_tokens_details") or {}
        await context.count(
            self._model,
            input_tokens=self._usage.get("prompt_tokens") or 0,
            output_tokens=self._usage.get("completion_tokens") or 0,
            cached_input_tokens=details.get("cached_tokens") or 0,
            elapsed=time.monotonic() - self._began,
            to_first_word=self._first_word,
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
