"""The conformance suite's agents, as users of the Agent Development Kit write them."""

import sys
from collections.abc import AsyncGenerator

import pydantic
from google.adk.agents import Agent
from google.adk.agents.readonly_context import ReadonlyContext
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.models.lite_llm import LiteLlm
from google.adk.tools import FunctionTool
from google.adk.tools.mcp_tool import McpToolset, StdioConnectionParams
from google.genai import types
from mcp import StdioServerParameters

model = LiteLlm(model="openai/scripted-1", num_retries=0)


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


def say(context: ReadonlyContext) -> str:
    state = context.state
    return f"parameters: {sorted(state)} {sorted(state['parameters'].items())}"


class Thinker(BaseLlm):
    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        thoughts = [types.Part(text=text, thought=True) for text in ("let me ", "see")]
        for part in [*thoughts, types.Part(text="seen")]:
            yield LlmResponse(content=types.Content(role="model", parts=[part]), partial=True)
        yield LlmResponse(content=types.Content(role="model", parts=[*thoughts, types.Part(text="seen")]))


forecast = Agent(name="forecast", model=model, tools=[weather, broken], description="Knows the weather.")
careful = Agent(name="careful", model=model, tools=[FunctionTool(pay, require_confirmation=True)])
tables = StdioServerParameters(command=sys.executable, args=["-m", "tests.adapters.apps.tables"])
host = Agent(
    name="host",
    model=model,
    tools=[McpToolset(connection_params=StdioConnectionParams(server_params=tables, timeout=60))],
)
shaped = Agent(name="shaped", model=model, output_schema=Report)
secretive = Agent(name="secretive", model=model, instruction=say)
thoughtful = Agent(name="thoughtful", model=Thinker(model="thinker"))
researcher = Agent(name="researcher", model=model, description="Researches.")
desk = Agent(name="desk", model=model, sub_agents=[researcher])
