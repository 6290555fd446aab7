"""The conformance suite's agents, as users of Pydantic AI write them."""

import sys
from collections.abc import AsyncIterator
from typing import Any

import pydantic
from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from pydantic_ai import Agent, RunContext, Tool
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, DeltaThinkingCalls, DeltaThinkingPart, FunctionModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import ExternalToolset


class Report(pydantic.BaseModel):
    city: str
    degrees: int


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"7 degrees in {city}"


def broken() -> str:
    """Never work."""
    raise ValueError("a secret of the tool's")


def pay(amount: float, to: str) -> str:
    """Pay somebody."""
    return f"{amount:g} to {to}"


forecast = Agent(OpenAIChatModel("scripted-1"), tools=[weather, broken], description="Knows the weather.")
careful = Agent(OpenAIChatModel("scripted-1"), tools=[Tool(pay, requires_approval=True)])
# In a session of the newest kind a server cannot ask: that is agreed on with servers that know it.
tables = Client(StdioTransport(sys.executable, ["-m", "tests.adapters.apps.tables"]), mode="legacy")
host = Agent(OpenAIChatModel("scripted-1"), toolsets=[MCPToolset(tables)])
letter = {"type": "object", "properties": {"what": {"type": "string"}}}
scales = ToolDefinition(name="weigh", parameters_json_schema=letter)
postmaster = Agent(OpenAIChatModel("scripted-1"), toolsets=[ExternalToolset([scales])])
shaped = Agent(OpenAIChatModel("scripted-1"), output_type=Report)
secretive = Agent(OpenAIChatModel("scripted-1"), deps_type=dict)


@secretive.instructions
def say(context: RunContext[dict[str, Any]]) -> str:
    return f"parameters: {sorted(context.deps)} {sorted(context.deps['parameters'].items())}"


async def thinks(_: list[ModelMessage], __: AgentInfo) -> AsyncIterator[str | DeltaThinkingCalls]:
    yield {0: DeltaThinkingPart(content="let me ")}
    yield {0: DeltaThinkingPart(content="see")}
    yield "seen"


thoughtful = Agent(FunctionModel(stream_function=thinks))
