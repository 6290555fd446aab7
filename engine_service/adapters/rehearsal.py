"""How adapters warm up: agents of our own, with models that are scripted, and with clients that reach nobody.

An author's own clients are left alone. One that was used before the fork would not work after it.
"""

import importlib
import json
import logging
import sys
import warnings
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from engine_service.runtime.agent import Agent, AgentError
from engine_service.runtime.warm_up import rehearsed

MODEL = "scripted"
ASKED, TOOL, ARGUMENTS = "How is the weather?", "weather", {"city": "Oslo"}
WORDS = ("It ", "is ", "fine.")
REFUSED = "http://localhost:1/v1"
"""Where nobody listens. By name: looking it up is part of what is rehearsed."""
TIMES = 3

Document = dict[str, Any]


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"fine in {city}"


async def rehearse(agents: Iterable[type[Agent]], unreached: Iterable[type[Agent]] = ()) -> None:
    """Let agents do what they do, and those of a model that cannot be reached fail as they do."""
    agents, unreached = tuple(agents), tuple(unreached)
    before = logging.root.manager.disable
    logging.disable()  # that nobody is reached is as it should be
    try:
        for agent in (*agents, *unreached) * TIMES:
            try:
                await rehearsed(agent, ASKED)
            except AgentError as error:
                if agent not in unreached:
                    why = repr(error.__cause__ or error)
                    warnings.warn(f"{agent.name} is not rehearsed: its runs take longer ({why})", stacklevel=2)
                    return
    finally:
        logging.disable(before)


@asynccontextmanager
async def openai_clients() -> AsyncIterator[tuple[list[Any], list[Any]]]:
    """Give clients whose server is scripted, and some that reach none; neither where nobody uses that library."""
    openai: Any = sys.modules.get("openai")
    if openai is None:
        yield [], []
        return
    about = {"base_url": REFUSED, "api_key": MODEL, "max_retries": 0}
    scripted = openai.AsyncOpenAI(**about, http_client=http_client())
    unreached = openai.AsyncOpenAI(**about, http_client=http_client(reached=False))
    async with scripted, unreached:
        yield [scripted], [unreached]


def http_client(*, reached: bool = True) -> Any:
    """Make an HTTP client as OpenAI's library has it, of a server that answers: a tool's call, and then words."""
    kind = importlib.import_module("openai").DefaultAsyncHttpxClient.__base__
    http = importlib.import_module(kind.__module__.partition(".")[0])  # httpx, or what came after it

    def answer(request: Any) -> Any:
        is_done = "fine in Oslo" in request.content.decode()
        script = (
            _responses(is_done=is_done) if request.url.path.endswith("/responses") else _completions(is_done=is_done)
        )
        events = "".join(f"event: {each.get('type', 'x')}\ndata: {json.dumps(each)}\n\n" for each in script)
        return http.Response(200, headers={"content-type": "text/event-stream"}, text=f"{events}data: [DONE]\n\n")

    return kind(transport=http.MockTransport(answer)) if reached else kind()


def _completions(*, is_done: bool) -> list[Document]:
    """Write what Chat Completions stream."""
    function = {"name": TOOL, "arguments": json.dumps(ARGUMENTS)}
    call = {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}
    deltas: list[Document] = [{"content": word} for word in WORDS] if is_done else [call]
    choices: list[Document] = [
        {"index": 0, "delta": {"role": "assistant"} | delta, "finish_reason": None} for delta in deltas
    ]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop" if is_done else "tool_calls"})
    about = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return [*(about | {"choices": [choice]} for choice in choices), about | {"choices": [], "usage": usage}]


def _responses(*, is_done: bool) -> list[Document]:
    """Write what Responses stream."""
    place: Document = {"item_id": "1", "output_index": 0, "content_index": 0}
    if is_done:
        part: Document = {"type": "output_text", "text": "".join(WORDS), "annotations": [], "logprobs": []}
        item: Document = {"id": "1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        began = item | {"content": [], "status": "in_progress"}
        said = [{"type": "response.output_text.delta", "delta": word, "logprobs": []} for word in WORDS]
        steps = [
            {"type": "response.content_part.added", "part": part | {"text": ""}}, *said,
            {"type": "response.output_text.done", "text": part["text"], "logprobs": []},
            {"type": "response.content_part.done", "part": part},
        ]  # fmt: skip
    else:
        item = {
            "id": "1",
            "type": "function_call",
            "call_id": "call_1",
            "name": TOOL,
            "arguments": json.dumps(ARGUMENTS),
        }
        began = item | {"arguments": "", "status": "in_progress"}
        steps = [
            {"type": "response.function_call_arguments.delta", "delta": item["arguments"]},
            {"type": "response.function_call_arguments.done", "arguments": item["arguments"], "name": TOOL},
        ]
    usage = {
        "input_tokens": 1, "output_tokens": 1, "total_tokens": 2, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    about: Document = {
        "id": "1", "object": "response", "created_at": 1, "model": MODEL, "parallel_tool_calls": True,
        "tool_choice": "auto", "tools": [],
    }  # fmt: skip
    over = about | {"status": "completed", "output": [item], "usage": usage}
    events: list[Mapping[str, Any]] = [
        {"type": "response.created", "response": about | {"status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": began},
        *(place | step for step in steps),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": over},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]
