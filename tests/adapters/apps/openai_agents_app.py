"""The conformance suite's agents, as users of the OpenAI Agents SDK write them."""

from collections.abc import AsyncIterator
from typing import Any

import pydantic
from agents import Agent, OpenAIChatCompletionsModel, RunContextWrapper, function_tool
from agents.items import ModelResponse
from agents.models.interface import Model
from openai import AsyncOpenAI
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningTextDeltaEvent,
    ResponseTextDeltaEvent,
)

model = OpenAIChatCompletionsModel("scripted-1", AsyncOpenAI(max_retries=0))


class Report(pydantic.BaseModel):
    city: str
    degrees: int


@function_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"7 degrees in {city}"


@function_tool(failure_error_function=None)
def broken() -> str:
    """Never work."""
    raise ValueError("a secret of the tool's")


@function_tool(needs_approval=True)
def pay(amount: float, to: str) -> str:
    """Pay somebody."""
    return f"{amount:g} to {to}"


def say(context: RunContextWrapper[dict[str, Any]], _: Agent[Any]) -> str:
    return f"parameters: {sorted(context.context)} {sorted(context.context['parameters'].items())}"


class Thinker(Model):
    async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
        raise NotImplementedError

    async def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        about = {"item_id": "1", "output_index": 0, "content_index": 0, "sequence_number": 0}
        for word in ("let me ", "see"):
            yield ResponseReasoningTextDeltaEvent(type="response.reasoning_text.delta", delta=word, **about)
        yield ResponseTextDeltaEvent(type="response.output_text.delta", delta="seen", logprobs=[], **about)
        text = ResponseOutputText(type="output_text", text="seen", annotations=[])
        message = ResponseOutputMessage(id="1", type="message", role="assistant", status="completed", content=[text])
        response = Response(
            id="1", created_at=1, model="thinker", object="response", output=[message], parallel_tool_calls=False,
            tool_choice="auto", tools=[],
        )  # fmt: skip
        yield ResponseCompletedEvent(type="response.completed", response=response, sequence_number=1)


forecast = Agent(name="forecast", model=model, tools=[weather, broken], handoff_description="Knows the weather.")
careful = Agent(name="careful", model=model, tools=[pay])
shaped = Agent(name="shaped", model=model, output_type=Report)
researcher = Agent(name="researcher", model=model)
desk = Agent(name="desk", model=model, handoffs=[researcher])
secretive = Agent(name="secretive", model=model, instructions=say)
thoughtful = Agent(name="thoughtful", model=Thinker())
