"""What people would write: FastAPI, the agent in the web process, one WebSocket a run."""

import importlib
import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, WebSocket

from benchmarks.real_agents import work

app = FastAPI()
FRAMEWORK = os.environ["REAL_AGENTS"]
agent: Any = importlib.import_module(f"benchmarks.real_agents.{FRAMEWORK}_app").agent

Event = dict[str, Any]


async def pydantic(asked: str) -> AsyncIterator[Event]:
    """Run it, and tell what it does."""
    from pydantic_ai import FunctionToolCallEvent, PartDeltaEvent, PartStartEvent  # noqa: PLC0415 - the other has none
    from pydantic_ai.messages import TextPart, TextPartDelta  # noqa: PLC0415

    async with agent.run_stream_events(asked) as events:
        async for event in events:
            match event:
                case (
                    PartStartEvent(part=TextPart(content=text))
                    | PartDeltaEvent(delta=TextPartDelta(content_delta=text))
                ) if text:
                    yield {"agentMessage": text}
                case FunctionToolCallEvent(part=call):
                    yield {"toolExecuting": call.tool_name}
                case _:
                    pass


async def langgraph(asked: str) -> AsyncIterator[Event]:
    """Run it, and tell what it does."""
    from langchain_core.messages import AIMessageChunk, HumanMessage  # noqa: PLC0415 - the other has none

    state = {"messages": [HumanMessage(asked)]}
    async for part in agent.astream(state, stream_mode=["messages", "updates"], version="v2"):
        if part["type"] == "messages":
            message, _ = part["data"]
            if isinstance(message, AIMessageChunk) and message.text:
                yield {"agentMessage": message.text}
        elif "model" in part["data"]:
            for call in part["data"]["model"]["messages"][-1].tool_calls:
                yield {"toolExecuting": call["name"]}


async def ticking(_: str) -> AsyncIterator[Event]:
    """Say something twenty times a second."""
    async for word in work.ticks():
        yield {"agentMessage": word}


@app.websocket("/run")
async def run(socket: WebSocket) -> None:
    """Run one agent."""
    await socket.accept()
    asked = await socket.receive_json()
    await socket.send_json({"agentStarted": {}})
    runs = {"pydantic": pydantic, "langgraph": langgraph, "ticking": ticking}
    async for event in runs["ticking" if asked["agent"] == "ticking" else FRAMEWORK](asked["input"]):
        await socket.send_json(event)
    await socket.send_json({"agentCompleted": {}})
    await socket.close()
