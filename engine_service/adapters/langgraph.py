"""Graphs of LangGraph whose state has messages."""

import asyncio
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
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from langgraph.graph import MessagesState, StateGraph
from langgraph.pregel import Pregel
from langgraph.types import Command, Interrupt
from langsmith import tracing_context

from engine_service.adapters import rehearsal
from engine_service.adapters.rehearsal import rehearse
from engine_service.adapters.telling import DECLINED, EXPIRED, FAILED, ModelCalls, close, dumped, refusal
from engine_service.runtime import failures
from engine_service.runtime.agent import Agent, Answer, Declined, Expired, ModelError, RunContext
from engine_service.runtime.objects import made
from engine_service.runtime.plain import plain
from engine_service.wire import RegistryError

INTERRUPT = "__interrupt__"
ANSWER = {"answer": {"type": "string"}}
"""What is asked for where a node doesn't say."""
NOBODY = "Nobody answered in time."
MODES = ["messages", "updates", "tasks"]

Place = tuple[str, ...]
"""Where a graph is inside the one that runs: the nodes that lead to it, each with the id of its task."""


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
        with tracing_context(enabled=False):  # or its client would be used before the fork
            await cls._rehearse()

    @classmethod
    async def _rehearse(cls) -> None:
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
            "callbacks": [Metered(telling)],
        }
        graph, history = self.target, list[BaseMessage]()
        if not graph.checkpointer:  # or it would know what was said, and could stop to ask
            graph, history = graph.copy({"checkpointer": InMemorySaver()}), _history(context)
        asked: Any = {"messages": [*history, HumanMessage(input)]}
        try:
            while asked:
                async for part in graph.astream(asked, config, stream_mode=MODES, version="v2", subgraphs=True):
                    await telling.hear(part["type"], part["ns"], part["data"])
                asked = await telling.settle()
        except Exception as error:
            if isinstance(error, GraphRecursionError):
                raise ModelError(failures.TOO_MUCH) from error
            if failure := telling.calls.failure(error):
                raise failure from error
            raise
        finally:
            await telling.close()
        return Answer(telling.output(), telling.data)


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
    """Tells what a graph does, and those inside it, which are known by their nodes; and what it answered."""

    def __init__(self, context: RunContext) -> None:
        self._contexts: dict[Place, RunContext] = {(): context}
        self._outputs: dict[Place, str] = {}
        self._streamed = set[str | None]()
        self._asked = set[str | None]()
        self._waiting: dict[str, tuple[RunContext, Interrupt]] = {}
        self.calls = ModelCalls()
        self.data: Mapping[str, Any] = {}

    def context(self, place: Place) -> RunContext:
        """Return the context of a graph: the run's, or one that begins inside another."""
        if place not in self._contexts:
            above = self.context(place[:-1])
            self._contexts[place] = above.sub_agents.begin(place[-1].partition(":")[0], another=True)
        return self._contexts[place]

    def output(self, place: Place = ()) -> str:
        """Return what a graph said last."""
        return self._outputs.get(place, "")

    async def hear(self, kind: str, place: Place, data: Any) -> None:
        """Take in one part of a graph's stream."""
        context = self.context(place)
        if kind == "messages":
            message, _ = data
            # What a node returns comes here, too: a message that was streamed is told as it forms, and not again.
            if isinstance(message, AIMessageChunk):
                self._streamed.add(message.id)
            if isinstance(message, AIMessageChunk) or (isinstance(message, AIMessage) and self._is_new(message)):
                await _say(context, message)
        elif kind == "tasks" and "result" in data and not data["interrupts"]:
            self._end((*place, f"{data['name']}:{data['id']}"))
        elif kind == "updates":
            for name, update in data.items():
                if name == INTERRUPT:
                    self._waiting |= {each.id: (context, each) for each in update}
                    continue
                for message in _messages(update):
                    self._tell(context, place, message)
                if isinstance(update, Mapping) and (shaped := update.get("structured_response")) is not None:
                    self.data = dumped(shaped)

    async def settle(self) -> Command[Any] | None:
        """Ask what the graph has stopped for, and return with what it goes on; None if it is done."""
        waiting, self._waiting = self._waiting, {}
        replies = await asyncio.gather(*(_ask(context, each.value) for context, each in waiting.values()))
        return Command(resume=dict(zip(waiting, replies, strict=True))) if waiting else None

    async def close(self) -> None:
        """Tell of all that are still at work that they are over."""
        await close(self._contexts[()], self.calls)

    def _is_new(self, message: AIMessage) -> bool:
        """Tell whether a whole message, as a node returns it, was not told as it formed."""
        known = message.id in self._streamed
        self._streamed.add(message.id)
        return not known

    def _end(self, place: Place) -> None:
        """Hear that a node is done, and with it the graph that it is, if it is one."""
        if ended := self._contexts.pop(place, None):
            self.context(place[:-1]).sub_agents.end(ended, self._outputs.pop(place, ""))

    def _tell(self, context: RunContext, place: Place, message: BaseMessage) -> None:
        calls = context.tool_calls
        if isinstance(message, ToolMessage):
            if message.status == "error":
                why = next((each for each in (DECLINED, EXPIRED) if each in message.text), FAILED)
                calls.fail(message.tool_call_id, why)
            else:
                calls.end(message.tool_call_id, message.content)
        elif isinstance(message, AIMessage):
            for call in message.tool_calls:
                if message.id not in self._asked:
                    calls.begin(call["name"], call["args"], call["id"] or "")
            # A graph returns what those inside it have said, too, which is theirs.
            self._asked |= {message.id} - {None}
            if not message.tool_calls:
                self._outputs[place] = message.text


async def _ask(context: RunContext, value: Any) -> Any:
    """Ask for what a node wants to know, and return what it gets. Raises Declined and Expired."""
    if isinstance(value, Mapping) and "action_requests" in value:  # LangChain's own: tools that have to be approved of
        return {"decisions": list(await asyncio.gather(*(_decide(context, each) for each in value["action_requests"])))}
    about: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
    words = next((about[name] for name in ("message", "question") if isinstance(about.get(name), str)), None)
    schema = about.get("schema")
    message = words or (value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False))
    reply = await context.questions.ask(message or "?", schema or ANSWER, is_halted=True)
    if reply.outcome == "accepted":
        return dict(reply.content) if schema else reply.content["answer"]
    raise Declined("The user declined to answer.") if reply.outcome == "declined" else Expired(NOBODY, retryable=True)


async def _decide(context: RunContext, request: Mapping[str, Any]) -> dict[str, str]:
    tool, arguments, about = request["name"], request["args"], request.get("description", "")
    reply = await context.questions.approval(
        tool, arguments, context.tool_calls.find(tool, arguments), about, is_halted=True
    )
    return {"type": "reject", "message": why} if (why := refusal(reply)) else {"type": "approve"}


class Metered(AsyncCallbackHandler):
    """Counts what each call to a model took."""

    def __init__(self, telling: Telling) -> None:
        self._telling = telling

    async def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **about: Any) -> None:
        """Hear that a model is called."""
        known = about.get("metadata") or {}
        place = tuple(known.get("langgraph_checkpoint_ns", "").split("|"))[:-1]  # the last is the node itself
        self._telling.calls.begin(run_id, self._telling.context(place), known.get("ls_model_name") or "unknown")

    async def on_llm_new_token(self, token: str, *, run_id: UUID, **_: Any) -> None:
        """Hear a word."""
        if token:
            self._telling.calls.hear_word(run_id)

    async def on_llm_end(self, response: Any, *, run_id: UUID, **_: Any) -> None:
        """Hear that a call has ended."""
        message = response.generations[0][0].message
        usage: Mapping[str, Any] = message.usage_metadata or {}
        await self._telling.calls.end(
            run_id,
            message.response_metadata.get("model_name"),
            input_tokens=usage.get("input_tokens", 0),
            output_tokens=usage.get("output_tokens", 0),
            cached_input_tokens=usage.get("input_token_details", {}).get("cache_read", 0),
        )

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Hear that a call has failed."""
        await self._telling.calls.fail(run_id)


async def _say(context: RunContext, message: AIMessageChunk) -> None:
    for block in message.content_blocks:
        if block["type"] == "text" and (words := block.get("text")):
            await context.say(words)
        elif block["type"] == "reasoning" and (words := block.get("reasoning")):
            await context.think(words)


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
