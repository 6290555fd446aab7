"""A graph of LangGraph without a model: the text "2000" makes it say 2000 things.

Served by `langgraph dev`. POST /runs/stream with the text in "input", and "stream_mode": "custom", streams one
"event: custom" an event. The other texts are "wait", for one event and then nothing until the client is gone (which
needs "on_disconnect": "cancel"), and "busy", for one event and two seconds of computing.
"""

import asyncio
import time
from typing import TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph


class State(TypedDict):
    """What the agent is asked."""

    text: str


async def deltas(state: State) -> None:
    """Say as many things as asked for."""
    write = get_stream_writer()
    asked = state["text"]
    for i in range(int(asked) if asked.isdigit() else 1):
        write(f"{i} of many")
    if asked == "wait":
        await asyncio.Event().wait()
    if asked == "busy":
        until = time.monotonic() + 2
        while time.monotonic() < until:
            pass


graph = StateGraph(State).add_node(deltas).add_edge(START, "deltas").compile()
