"""Agents of the OpenAI Agents SDK."""

import asyncio
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
    RunResultStreaming,
    RunState,
    ToolApprovalItem,
    exceptions,
    function_tool,
)
from agents.models import get_default_model

from engine_service.adapters import rehearsal
from engine_service.adapters.rehearsal import openai_clients, rehearse
from engine_service.adapters.telling import DECLINED, EXPIRED, FAILED, Cast, answer, refusal
from engine_service.runtime import failures
from engine_service.runtime.agent import Agent, Answer, ModelError, RunContext
from engine_service.runtime.asking import Reply
from engine_service.runtime.objects import made

NOT_DONE = "An error occurred while "
"""What the SDK tells a model whose tool did not work begins so."""
ONLY = "the call"
"""There is one call at a time."""
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
        telling = Telling(context, self.target.name)
        asked: Any = [{"role": message.role, "content": message.text} for message in context.history]
        asked = [*asked, {"role": "user", "content": input}]
        about: Any = {"parameters": dict(context.parameters)}  # what the caller sent stands under one key
        running = None
        try:
            while asked:
                running = Runner.run_streamed(
                    self.target,
                    asked,
                    context=about,
                    hooks=Metered(telling),
                    run_config=RunConfig(tracing_disabled=True),
                )
                async for event in running.stream_events():
                    await telling.hear(event)
                asked = running.interruptions and await telling.settle(running)
            assert running, "it has run"  # noqa: S101 - for the reader, and mypy
            telling.finish(running.final_output)
        except Exception as error:
            if failure := _failure(error) or telling.calls.failure(error):
                raise failure from error
            raise
        finally:
            if running:
                running.cancel()
            await telling.close()
        return answer(running.final_output)


def _models(clients: list[Any]) -> list[Model]:
    kinds = (OpenAIChatCompletionsModel, OpenAIResponsesModel)
    return [kind(rehearsal.MODEL, openai_client=client) for client in clients for kind in kinds]


def _rehearsal(model: Model) -> type[Agent]:
    tool = function_tool(rehearsal.weather)
    return made(SdkAgent, "openai_agents", "", target=OpenAIAgent(name="rehearsal", model=model, tools=[tool]))


class Telling(Cast):
    """Tells what agents do: the one that was asked, and whom it hands the conversation to."""

    def __init__(self, context: RunContext, name: str) -> None:
        super().__init__(context, name)
        self._asked: list[tuple[RunContext, Any]] = []

    async def hear(self, event: Any) -> None:
        """Take in what happened. What is of a kind that is not known is none of a user's business."""
        calls = self._context.tool_calls
        if event.type == "agent_updated_stream_event":
            before, self._context = self._context, self.context(event.new_agent.name)
            if before is not self._context:
                self._root.sub_agents.end(before)  # if it was one
        elif event.type == "raw_response_event":
            await self._say(event.data)
        elif event.type == "run_item_stream_event" and event.name == "tool_called":
            self._asked.append((self._context, event.item.raw_item))
            self.begin_tools()
        elif event.type == "run_item_stream_event" and event.name == "tool_output":
            call_id, output = _of(event.item.raw_item, "call_id"), event.item.output
            if output in {DECLINED, EXPIRED}:
                calls.fail(call_id, output)
            elif isinstance(output, str) and output.startswith(NOT_DONE):
                calls.fail(call_id, FAILED)
            else:
                calls.end(call_id, output)

    def begin_tools(self) -> None:
        """Tell of tools that the model asked for, once it has said all that it says."""
        while self._asked and not self.calls.is_open(ONLY):
            context, call = self._asked.pop(0)
            call_id = _of(call, "call_id") or _of(call, "id")
            name = _of(call, "name") or _of(call, "type").removesuffix("_call")
            context.tool_calls.begin(name, _arguments(_of(call, "arguments")), call_id)
            if not _of(call, "call_id"):  # it is OpenAI's own, and done there
                context.tool_calls.end(call_id, _of(call, "status"))

    async def settle(self, running: RunResultStreaming) -> RunState[Any]:
        """Ask about all calls that wait for approval, and return from where to go on."""
        state = running.to_state()
        replies = await asyncio.gather(*map(self._approval, running.interruptions))
        for item, reply in zip(running.interruptions, replies, strict=True):
            if why := refusal(reply):
                state.reject(item, rejection_message=why)
            else:
                state.approve(item)
        return state

    async def _approval(self, item: ToolApprovalItem) -> Reply:
        call, context = item.raw_item, self.context(item.agent.name)
        arguments = _arguments(_of(call, "arguments"))
        return await context.questions.approval(
            item.tool_name or "tool", arguments, _of(call, "call_id"), is_halted=True
        )

    def finish(self, output: Any) -> None:
        """Tell that whoever has the conversation is done."""
        self._root.sub_agents.end(self._context, *answer(output))

    async def _say(self, data: Any) -> None:
        if data.type not in {WORDS, *REASONING} or not data.delta:
            return
        self.calls.hear_word(ONLY)
        if data.type == WORDS:
            await self._context.say(data.delta)
        else:
            await self._context.think(data.delta)


class Metered(RunHooks[Any]):
    """Counts what each call to a model took."""

    def __init__(self, telling: Telling) -> None:
        self._telling = telling

    async def on_llm_start(self, context: Any, agent: Any, *_: Any) -> None:
        """Hear that a model is called."""
        model = agent.model or get_default_model()
        name = model if isinstance(model, str) else str(getattr(model, "model", type(model).__name__))
        self._telling.calls.begin(ONLY, self._telling.context(agent.name), name)

    async def on_llm_end(self, context: Any, agent: Any, response: ModelResponse) -> None:
        """Hear that a call has ended."""
        usage = response.usage
        await self._telling.calls.end(
            ONLY,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_input_tokens=usage.input_tokens_details.cached_tokens or 0,
        )
        self._telling.begin_tools()


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
            return None
