"""Agents of Pydantic AI."""

import asyncio
import importlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, PydanticSchemaGenerationError, TypeAdapter
from pydantic_ai import Agent as PydanticAgents
from pydantic_ai import (
    AgentRunResultEvent,
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    PartDeltaEvent,
    PartStartEvent,
    ToolApproved,
    ToolDenied,
    exceptions,
)
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.capabilities import AbstractCapability, HandleDeferredToolCalls
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults
from pydantic_ai.toolsets import AbstractToolset, WrapperToolset
from pydantic_ai.usage import RequestUsage

from engine_service.adapters import elicitation, rehearsal
from engine_service.adapters.rehearsal import openai_clients, rehearse
from engine_service.adapters.telling import FAILED, RESULT, answer, refusal
from engine_service.runtime import failures
from engine_service.runtime.agent import Agent, AgentError, Answer, ModelError, RunContext
from engine_service.runtime.model_call import ModelCall
from engine_service.runtime.objects import made
from engine_service.wire import RegistryError

T = TypeVar("T")
RETRIED = "It was called in a way that it does not take; the model is to call it anew."


def adapt(found: object, name: str) -> type[Agent] | None:
    """Make an agent of one of Pydantic AI's; None of anything else that is theirs."""
    if not isinstance(found, AbstractAgent):
        return None
    about = found.description if isinstance(found.description, str) else ""
    try:
        _deps(found.deps_type, {})
    except TypeError as error:
        raise RegistryError(f"{name!r}: its deps_type takes no `parameters`, which is all that it is given") from error
    return made(PydanticAgent, name, about, target=found)


class PydanticAgent(Agent):
    """Runs one."""

    target: ClassVar[AbstractAgent[Any, Any]]

    @classmethod
    async def warm_up(cls) -> None:
        """Have agents of ours run."""
        async with openai_clients() as (scripted, unreached):
            models = [FunctionModel(stream_function=_script), *(model for each in scripted for model in _models(each))]
            lost = [model for each in unreached for model in _models(each)]
            await rehearse(map(_rehearsal, models), map(_rehearsal, lost))

    async def run(self, context: RunContext, input: str) -> Answer:
        """Run it, and tell what it does."""
        result: Any = None
        metered = Metered(context)
        running = self.target.run_stream_events(
            input,
            message_history=_history(context),
            deps=_deps(self.target.deps_type, context.parameters),
            capabilities=[metered, HandleDeferredToolCalls(_Asking(context).settle), Reached(context)],
        )
        try:
            async with running as events:
                async for event in events:
                    if isinstance(event, AgentRunResultEvent):
                        result = event.result.output
                    else:
                        await _tell(context, metered, event)
        except exceptions.AgentRunError as error:
            raise _failure(error) from error
        except ExceptionGroup as group:  # of several models none could
            error = next((each for each in group.exceptions if isinstance(each, exceptions.AgentRunError)), None)
            if error is None:
                raise
            raise _failure(error) from group
        finally:
            context.tool_calls.close(FAILED)
        return answer(result, _plain)


def _rehearsal(model: Model) -> type[Agent]:
    agent = PydanticAgents(model, tools=[rehearsal.weather], instructions="Be short.")
    return made(PydanticAgent, "pydantic_ai", "", target=agent)


def _models(client: Any) -> list[Model]:
    openai = sys.modules.get("pydantic_ai.models.openai")
    if openai is None:
        return []
    provider = importlib.import_module("pydantic_ai.providers.openai").OpenAIProvider(openai_client=client)
    return [kind(rehearsal.MODEL, provider=provider) for kind in (openai.OpenAIChatModel, openai.OpenAIResponsesModel)]


async def _script(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
    if len(messages) == 1:
        yield {0: DeltaToolCall(rehearsal.TOOL, json.dumps(rehearsal.ARGUMENTS), tool_call_id="call_1")}
    else:
        for word in rehearsal.WORDS:
            yield word


class Metered(AbstractCapability[Any]):
    """Counts what each call to a model took."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._call: ModelCall | None = None

    def hear_word(self) -> None:
        """Hear that the model has said something."""
        if self._call:
            self._call.hear_word()

    async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Any) -> ModelResponse:
        """Call the model, and count the call, also one that fails."""
        call = self._call = ModelCall(self._context, request_context.model.model_name)
        response: ModelResponse | None = None
        try:
            response = await handler(request_context)
        finally:
            usage = response.usage if response else RequestUsage()
            await call.end(
                response and response.model_name,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cached_input_tokens=usage.cache_read_tokens,
            )
        return response


class Reached(AbstractCapability[Any]):
    """Lets servers of tools ask the run's user."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any] | None:
        """Wrap the run's tools."""
        servers = sys.modules.get("pydantic_ai.mcp")  # nobody has any whose module was not imported
        kind = getattr(servers, "MCPToolset", None)
        return Servers(toolset, self._context, kind) if kind and self._context.is_alone else None


@dataclass
class Servers(WrapperToolset[Any]):
    """A run's tools, those of servers among them."""

    context: RunContext
    kind: type[Any]
    askers: list[elicitation.Asker] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        """Connect them, once they know whom to ask."""
        self.wrapped.apply(self._reach)
        try:
            return await super().__aenter__()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *args: object) -> bool | None:
        """Let go of them."""
        self._leave()
        return await super().__aexit__(*args)

    def _reach(self, toolset: AbstractToolset[Any]) -> None:
        if isinstance(toolset, self.kind):
            options = getattr(toolset.client, "_session_kwargs", {})
            patience = options.get("read_timeout_seconds")
            seconds = patience.total_seconds() if isinstance(patience, timedelta) else patience
            if asker := elicitation.reach(options, seconds):
                asker.begin(self._user)
                self.askers.append(asker)

    def _leave(self) -> None:
        for asker in self.askers:
            asker.end(self._user)
        self.askers.clear()

    def _user(self) -> RunContext:
        return self.context


class _Asking:
    """Asks the user about tools that wait for somebody: for approval, or for what they return."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    async def settle(self, _: Any, requests: DeferredToolRequests) -> DeferredToolResults:
        """Ask about all of them at once."""
        approvals, calls = await asyncio.gather(
            _each(self._approve, requests.approvals), _each(self._do, requests.calls)
        )
        return requests.build_results(approvals=approvals, calls=calls)

    async def _approve(self, call: ToolCallPart) -> ToolApproved | ToolDenied:
        reply = await self._context.questions.approval(call.tool_name, call.args_as_dict(), call.tool_call_id)
        return ToolDenied(why) if (why := refusal(reply)) else ToolApproved()

    async def _do(self, call: ToolCallPart) -> Any:
        arguments = json.dumps(call.args_as_dict(), ensure_ascii=False)
        reply = await self._context.questions.ask(f"What does {call.tool_name} return for {arguments}?", RESULT)
        return exceptions.ToolFailed(why) if (why := refusal(reply)) else reply.content["result"]


async def _each(settle: Callable[[ToolCallPart], Awaitable[T]], calls: list[ToolCallPart]) -> dict[str, T]:
    settled = await asyncio.gather(*map(settle, calls))
    return {call.tool_call_id: each for call, each in zip(calls, settled, strict=True)}


async def _tell(context: RunContext, metered: Metered, event: object) -> None:
    """Tell what happened. What is of a kind that is not known is none of a user's business."""
    match event:
        case PartStartEvent(part=TextPart(content=words)) | PartDeltaEvent(delta=TextPartDelta(content_delta=words)):
            if words:
                metered.hear_word()
                await context.say(words)
        case (
            PartStartEvent(part=ThinkingPart(content=words))
            | PartDeltaEvent(delta=ThinkingPartDelta(content_delta=words))
        ):
            if words:
                metered.hear_word()
                await context.think(words)
        case FunctionToolCallEvent(part=call):
            context.tool_calls.begin(call.tool_name, call.args_as_dict(), call.tool_call_id)
        case FunctionToolResultEvent(part=part):
            outcome = getattr(part, "outcome", "retried")
            if outcome == "success":
                context.tool_calls.end(part.tool_call_id, _plain(part.content))
            else:
                said = {"retried": RETRIED, "denied": str(part.content)}
                context.tool_calls.fail(part.tool_call_id, said.get(outcome, FAILED))
        case _:
            pass


def _history(context: RunContext) -> list[ModelMessage]:
    return [
        ModelRequest(parts=[UserPromptPart(content=message.text)])
        if message.role == "user"
        else ModelResponse(parts=[TextPart(content=message.text)])
        for message in context.history
    ]


def _deps(kind: Any, parameters: Mapping[str, Any]) -> Any:
    """Return the agent's dependencies: what the caller sent stands under `parameters`, and nowhere else."""
    if kind is type(None) or kind is None:
        return None
    given = {"parameters": dict(parameters)}
    return kind(**given) if isinstance(kind, type) and kind not in {object, dict} else given


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    try:
        return TypeAdapter(type(value)).dump_python(value, mode="json")
    except (ValueError, PydanticSchemaGenerationError):  # what has no such form is told as it is written
        return value


def _failure(error: exceptions.AgentRunError) -> AgentError:
    """Say what went wrong, for a user."""
    match error:
        case exceptions.ModelHTTPError(status_code=status, retry_after=seconds):
            return failures.of_status(status, seconds)
        case exceptions.ModelAPIError(in_stream=True):
            return ModelError(failures.BROKEN, retryable=True)
        case exceptions.ModelAPIError():
            return ModelError(failures.UNREACHABLE, retryable=True)
        case exceptions.ContentFilterError():
            return ModelError(failures.REFUSED)
        case exceptions.UsageLimitExceeded():
            return ModelError(failures.TOO_MUCH)
        case _:
            return ModelError(failures.CONFUSED, retryable=True)
