"""An agent of Pydantic AI without a model: the message "2000" makes it say 2000 things.

Served by uvicorn. POST / with an AG-UI RunAgentInput, whose last message's content is the text, streams one "data:"
line an event. The other messages are "wait", for one event and then nothing until the client is gone, and "busy",
for one event and two seconds of computing.
"""

import asyncio
import time
from collections.abc import AsyncIterator

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.ui.ag_ui import AGUIAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def deltas(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str]:
    """Say as many things as asked for."""
    asked = str(messages[-1].parts[-1].content)
    if asked == "0":
        yield ""  # a FunctionModel must yield something; this makes no delta
    for i in range(int(asked) if asked.isdigit() else 1):
        yield f"{i} of many"
    if asked == "wait":
        await asyncio.Event().wait()
    if asked == "busy":
        until = time.monotonic() + 2
        while time.monotonic() < until:
            pass


# Without None, saying nothing is an error that is tried again.
agent = Agent(FunctionModel(stream_function=deltas), output_type=str | None)


async def run(request: Request) -> Response:
    """Run the agent for one request."""
    return await AGUIAdapter.dispatch_request(request, agent=agent)


app = Starlette(routes=[Route("/", run, methods=["POST"])])
