"""Agents of the OpenAI Agents SDK."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from agents import Agent as OpenAIAgent
from agents import (
    Model,
    ModelResponse,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    RunHooks,
    Runner,
    exceptions,
    function_tool,
)

from engine_service.adapters import failures, rehearsal
from engine_service.adapters.rehearsal import openai_clients, rehearse
from engine_service.adapters.telling import FAILED, ModelCall, answer
from engine_service.runtime.agent import Agent, Answer, ModelError, RunContext
from engine_service.runtime.objects import made

NOT_DONE = "An error occurred while "
"""What the SDK tells a model whose tool did not work begins so."""
WORDS = "response.output_text.delta"
REASONING = frozenset({"response.reasoning_text.delta", "response.reasoning_summary_text.delta"})


def adapt(found: object, name: str) -> type[Agent] | None:
    """Make an agent of one of the SDK's; None of anything else that is theirs."""
    if not isinstance(found, OpenAIAgent):
        return None
    return made(SdkAgent, name, found.handoff_description or "", target=found)


class SdkAgent(Agent):
    """Runs one."""

    target: ClassVar[OpenAIAgent[Any]]

    @classmethod
    async def warm_up(cls) -> None:
        """Have agents of ours run."""
        async with openai_clients() as (scripted, unreached):
            await rehearse(map(_rehearsal, _models(scripted)), map(_rehearsal, _models(unreached)))

    async def run(self, context: RunContext, input: str) -> Answer:
        """Run it, and tell what it does."""
        metered = Metered(context)
        asked: Any = [{"role": message.role, "content": message.text} for message in context.history]
        running = Runner.run_streamed(
            self.target,
            [*asked, {"role": "user", "content": input}],
            context={"parameters": dict(context.parameters)},  # what the caller sent stands under one key
            hooks=metered,
            run_config=RunConfig(tracing_disabled=True),
        )
        try:
            async for event in running.stream_events():
                await _tell(context, metered, event)
        except Exception as error:
            await metered.fail()
            if failure := _failure(error):
                raise failure from error
            raise
        finally:
            running.cancel()
            context.tool_calls.close(FAILED)
        return answer(running.final_output)


def _models(clients: list[Any]) -> list[Model]:
    kinds = (OpenAIChatCompletionsModel, OpenAIResponsesModel)
    return [kind(rehearsal.MODEL, openai_client=client) for client in clients for kind in kinds]


def _rehearsal(model: Model) -> type[Agent]:
    tool = function_tool(rehearsal.weather)
    return made(SdkAgent, "openai_agents", "", target=OpenAIAgent(name="rehearsal", model=model, tools=[tool]))


class Metered(RunHooks[Any]):
    """Counts what each call to a model took."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._call: ModelCall | None = None

    def hear_word(self) -> None:
        """Hear that the model has said something."""
        if self._call:
            self._call.hear_word()

    async def on_llm_start(self, context: Any, agent: Any, *_: Any) -> None:
        """Hear that a model is called."""
        model = agent.model
        self._call = ModelCall(model if isinstance(model, str) else str(getattr(model, "model", type(model).__name__)))

    async def on_llm_end(self, context: Any, agent: Any, response: ModelResponse) -> None:
        """Hear that a call has ended."""
        usage = response.usage
        await self._count(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_input_tokens=usage.input_tokens_details.cached_tokens or 0,
        )

    async def fail(self) -> None:
        """Hear that the run has failed: if it was in a call, that call did."""
        await self._count()

    async def _count(self, **tokens: int) -> None:
        call, self._call = self._call, None
        if call:
            await call.count(self._context, **tokens)


async def _tell(context: RunContext, metered: Metered, event: Any) -> None:
    """Tell what happened. What is of a kind that is not known is none of a user's business."""
    if event.type == "raw_response_event":
        kind = event.data.type
        if kind == WORDS and event.data.delta:
            metered.hear_word()
            await context.say(event.data.delta)
        elif kind in REASONING and event.data.delta:
            metered.hear_word()
            await context.think(event.data.delta)
    elif event.type == "run_item_stream_event" and event.name == "tool_called":
        call = event.item.raw_item
        context.tool_calls.begin(_of(call, "name"), _arguments(_of(call, "arguments")), _of(call, "call_id"))
    elif event.type == "run_item_stream_event" and event.name == "tool_output":
        call_id, output = _of(event.item.raw_item, "call_id"), event.item.output
        if isinstance(output, str) and output.startswith(NOT_DONE):
            context.tool_calls.fail(call_id, FAILED)
        else:
            context.tool_calls.end(call_id, output)


def _of(item: Any, name: str) -> str:
    """Read an item's field, be it an object or a dictionary: the SDK has both."""
    return str((item.get(name) if isinstance(item, Mapping) else getattr(item, name, "")) or "")


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text or "{}")
    except ValueError:
        return {"arguments": text}
    return arguments if isinstance(arguments, dict) else {"arguments": arguments}


def _failure(error: Exception) -> ModelError | None:
    """Say what went wrong with a model, for a user; None if nothing was wrong with one."""
    match error:
        case exceptions.ModelRefusalError():
            return ModelError(failures.REFUSED)
        case exceptions.MaxTurnsExceeded():
            return ModelError(failures.TOO_MUCH)
        case exceptions.ModelBehaviorError():
            return ModelError(failures.CONFUSED, retryable=True)
        case _:
            return failures.of_exception(error)
