"""The conformance suite's agents, as users of LangGraph write them."""

from collections.abc import AsyncIterator
from typing import Any

import pydantic
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, dynamic_prompt
from langchain.agents.structured_output import ToolStrategy
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.config import get_config
from langgraph.graph import MessagesState, StateGraph
from langgraph.types import Send, interrupt

model = ChatOpenAI(model="scripted-1", stream_usage=True, max_retries=0)


class Report(pydantic.BaseModel):
    city: str
    degrees: int


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"7 degrees in {city}"


@tool
def broken() -> str:
    """Never work."""
    raise ValueError("a secret of the tool's")


@tool
def pay(amount: float, to: str) -> str:
    """Pay somebody."""
    return f"{amount:g} to {to}"


def ask(_: MessagesState) -> dict[str, Any]:
    who = interrupt("Who are you?")
    order = interrupt({"message": "Which order?", "schema": {"order": {"type": "integer"}}})
    return {"messages": [AIMessage(f"{who} wants order {order['order']}.")]}


@dynamic_prompt
def say(_: Any) -> str:
    config = get_config()["configurable"]
    ours = sorted(key for key in config if not key.startswith("__") and key not in {"thread_id", "checkpoint_ns"})
    return f"parameters: {[key for key in ours if key == 'parameters']} {sorted(config['parameters'].items())}"


class Thinker(GenericFakeChatModel):
    async def _astream(self, *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        for block in ({"type": "reasoning", "reasoning": "let me "}, {"type": "reasoning", "reasoning": "see"}):
            yield ChatGenerationChunk(message=AIMessageChunk(content=[block], id="1"))
        yield ChatGenerationChunk(message=AIMessageChunk(content=[{"type": "text", "text": "seen"}], id="1"))


forecast = create_agent(model, [weather, broken], name="forecast")
careful = create_agent(model, [pay], middleware=[HumanInTheLoopMiddleware({"pay": True})])
curious = StateGraph(MessagesState).add_node("ask", ask).set_entry_point("ask").compile()
shaped = create_agent(model, [], response_format=ToolStrategy(Report))
secretive = create_agent(model, [], middleware=[say])
desk = StateGraph(MessagesState).add_node("researcher", forecast).set_entry_point("researcher").compile()
fan = (
    StateGraph(MessagesState)
    .add_node("begin", lambda _: {})
    .add_node("sub", forecast)
    .set_entry_point("begin")
    .add_conditional_edges("begin", lambda state: [Send("sub", state), Send("sub", state)])
    .compile()
)
thoughtful = create_agent(Thinker(messages=iter([])), [])
