"""Graphs of LangGraph whose state has messages."""

import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar, Self
from urllib.parse import quote
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tools import StructuredTool
from langgraph.graph import MessagesState, StateGraph
from langgraph.pregel import Pregel

from engine_service.adapters import failures, rehearsal
from engine_service.adapters.rehearsal import rehearse
from engine_service.adapters.telling import FAILED, ModelCall, dumped
from engine_service.runtime.agent import Agent, Answer, RunContext
from engine_service.runtime.objects import made
from engine_service.wire import RegistryError

MODES = ["messages", "updates"]


def adapt(found: object, name: str) -> type[Agent] | None:
    """Make an agent of a compiled graph; None of anything else that is LangGraph's."""
    if not isinstance(found, Pregel):
        return None
    if "messages" not in found.channels:
        raise RegistryError(f"the graph {name!r} has no `messages` in its state: that is where it would be asked")
    return made(GraphAgent, name, "", target=found)


class GraphAgent(Agent):
    """Runs one."""

    target: ClassVar[Pregel[Any, Any, Any, Any]]

    @classmethod
    async def warm_up(cls) -> None:
        """Have graphs of ours run."""
        openai = sys.modules.get("langchain_openai")
        if openai is None:
            await rehearse([_rehearsal(Scripted())])
            return
        about = {"model": rehearsal.MODEL, "base_url": rehearsal.REFUSED, "api_key": rehearsal.MODEL, "max_retries": 0}
        async with rehearsal.http_client() as scripted, rehearsal.http_client(reached=False) as unreached:
            models = [openai.ChatOpenAI(**about, http_async_client=http) for http in (scripted, unreached)]
            await rehearse([_rehearsal(Scripted()), _rehearsal(models[0])], [_rehearsal(models[1])])

    async def run(self, context: RunContext, input: str) -> Answer:
        """Run it, and tell what it does."""
        telling = Telling(context)
        # What the caller sent stands under one key. Beside it, it would choose whose messages are read.
        config: Any = {
            "configurable": {"thread_id": _thread(context), "parameters": dict(context.parameters)},
            "callbacks": [Metered(context)],
        }
        asked = {"messages": [*_history(context), HumanMessage(input)]}
        try:
            async for part in self.target.astream(asked, config, stream_mode=MODES, version="v2", subgraphs=True):
                await telling.hear(part["type"], part["data"])
        except Exception as error:
            if failure := failures.of_exception(error):
                raise failure from error
            raise
        finally:
            context.tool_calls.close(FAILED)
        return Answer(telling.output, telling.data)


def _rehearsal(model: BaseChatModel) -> type[Agent]:
    tool = StructuredTool.from_function(rehearsal.weather)
    if langchain := sys.modules.get("langchain.agents"):
        graph = langchain.create_agent(model, [tool])
    else:

        async def answer(state: MessagesState) -> dict[str, list[BaseMessage]]:
            return {"messages": [await model.ainvoke(state["messages"])]}

        graph = StateGraph(MessagesState).add_node("model", answer).set_entry_point("model").compile()
    return made(GraphAgent, "langgraph", "", target=graph)


class Scripted(BaseChatModel):
    """A model that calls a tool, and then says a few words."""

    _llm_type = "scripted"

    def bind_tools(self, *_: Any, **__: Any) -> Self:
        """Know the tool already."""
        return self

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError

    async def _astream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        if not isinstance(messages[-1], ToolMessage):
            call = {"name": rehearsal.TOOL, "args": json.dumps(rehearsal.ARGUMENTS), "id": "call_1", "index": 0}
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[call]))
            return
        for word in rehearsal.WORDS:
            yield ChatGenerationChunk(message=AIMessageChunk(word))


class Telling:
    """Tells what a graph does, and keeps what it answered."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self.output = ""
        self.data: Mapping[str, Any] = {}

    async def hear(self, kind: str, data: Any) -> None:
        """Take in one part of a graph's stream."""
        if kind == "messages":
            message, _ = data
            # What a node returns comes here, too: a message that was streamed is told as it forms, and not again.
            if isinstance(message, AIMessageChunk):
                await self._say(message)
        elif kind == "updates":
            for update in data.values():
                for message in _messages(update):
                    self._tell(message)
                if isinstance(update, Mapping) and (shaped := update.get("structured_response")) is not None:
                    self.data = dumped(shaped)

    async def _say(self, message: AIMessageChunk) -> None:
        for block in message.content_blocks:
            if block["type"] == "text" and (words := block.get("text")):
                await self._context.say(words)
            elif block["type"] == "reasoning" and (words := block.get("reasoning")):
                await self._context.think(words)

    def _tell(self, message: BaseMessage) -> None:
        calls = self._context.tool_calls
        if isinstance(message, ToolMessage):
            if message.status == "error":
                calls.fail(message.tool_call_id, FAILED)
            else:
                calls.end(message.tool_call_id, message.content)
        elif isinstance(message, AIMessage):
            for call in message.tool_calls:
                calls.begin(call["name"], call["args"], call["id"] or "")
            if not message.tool_calls:
                self.output = message.text


class Metered(AsyncCallbackHandler):
    """Counts what each call to a model took."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._calls: dict[UUID, ModelCall] = {}

    async def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **about: Any) -> None:
        """Hear that a model is called."""
        self._calls[run_id] = ModelCall((about.get("metadata") or {}).get("ls_model_name") or "unknown")

    async def on_llm_new_token(self, token: str, *, run_id: UUID, **_: Any) -> None:
        """Hear a word."""
        if token:
            self._calls[run_id].hear_word()

    async def on_llm_end(self, response: Any, *, run_id: UUID, **_: Any) -> None:
        """Hear that a call has ended."""
        message = response.generations[0][0].message
        await self._count(run_id, message.usage_metadata or {}, message.response_metadata.get("model_name"))

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Hear that a call has failed."""
        await self._count(run_id, {}, None)

    async def _count(self, run_id: UUID, usage: Mapping[str, Any], model: str | None) -> None:
        await self._calls.pop(run_id).count(
            self._context,
            model,
            input_tokens=usage.get("input_tokens", 0),
            output_tokens=usage.get("output_tokens", 0),
            cached_input_tokens=usage.get("input_token_details", {}).get("cache_read", 0),
        )


def _messages(update: Any) -> Iterator[BaseMessage]:
    """Find the messages that a node has added."""
    found = update.get("messages", ()) if isinstance(update, Mapping) else ()
    for message in found if isinstance(found, list | tuple) else [found]:
        if isinstance(message, BaseMessage):
            yield message


def _history(context: RunContext) -> list[BaseMessage]:
    return [
        HumanMessage(message.text) if message.role == "user" else AIMessage(message.text) for message in context.history
    ]


def _thread(context: RunContext) -> str:
    """Name the thread: the user's own, as verified, whatever the caller calls it."""
    return f"{quote(context.user_id, safe='')}/{context.thread_id or context.run_id}"
