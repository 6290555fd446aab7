"""Agents of Google's Agent Development Kit."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, ClassVar
from urllib.parse import quote

from google.adk.agents import BaseAgent, LlmAgent, RunConfig
from google.adk.agents.run_config import StreamingMode
from google.adk.apps import App
from google.adk.events import Event
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.runners import InMemoryRunner
from google.genai import types

from engine_service.adapters import elicitation, rehearsal
from engine_service.adapters.rehearsal import rehearse
from engine_service.adapters.telling import FAILED, Cast, answer, refusal
from engine_service.runtime import failures
from engine_service.runtime.agent import Agent, Answer, ModelError, RunContext
from engine_service.runtime.objects import made

APP = "runwire"
PARAMETERS = "parameters"
"""The key of the session's state under which what the caller sent stands."""
CONFIRMATION = "adk_request_confirmation"
"""What is called to ask whether another may be called."""
TOO_MANY = "LlmCallsLimitExceededError"


def adapt(found: object, name: str) -> type[Agent] | None:
    """Make an agent of one of the kit's; None of anything else that is theirs."""
    return made(AdkAgent, name, found.description, target=found) if isinstance(found, BaseAgent) else None


class AdkAgent(Agent):
    """Runs one."""

    target: ClassVar[BaseAgent]

    @classmethod
    async def warm_up(cls) -> None:
        """Have an agent of ours run."""
        agent = LlmAgent(name="rehearsal", model=Scripted(model=rehearsal.MODEL), tools=[rehearsal.weather])
        await rehearse([made(AdkAgent, "google_adk", "", target=agent)])

    async def run(self, context: RunContext, input: str) -> Answer:
        """Run it, and tell what it does."""
        telling = Telling(context, self.target.name)
        if context.is_alone:
            _reach(telling, self.target)
        app = App(name=APP, root_agent=self.target, plugins=[Metered(telling)])
        runner = InMemoryRunner(app=app)
        # The user is the verified one, and the thread is theirs, whatever the caller calls it.
        about = {"user_id": context.user_id, "session_id": quote(context.thread_id or context.run_id, safe="")}
        state = {PARAMETERS: dict(context.parameters)}
        session = await runner.session_service.create_session(app_name=APP, state=state, **about)
        for message in context.history:
            content = types.Content(role=ROLES[message.role], parts=[types.Part(text=message.text)])
            author = "user" if message.role == "user" else self.target.name
            await runner.session_service.append_event(session, Event(author=author, content=content))
        parts = [types.Part(text=input)]
        config = RunConfig(streaming_mode=StreamingMode.SSE)
        try:
            while parts:
                asked = types.Content(role="user", parts=parts)
                async for event in runner.run_async(new_message=asked, run_config=config, **about):
                    await telling.hear(event)
                parts = await telling.settle()
            telling.finish()
            shape = getattr(self.target, "output_schema", None)
            data = json.loads(telling.output) if shape and telling.output else None
        except json.JSONDecodeError as error:
            raise ModelError(failures.CONFUSED, retryable=True) from error
        except Exception as error:
            if type(error).__name__ == TOO_MANY:
                raise ModelError(failures.TOO_MUCH) from error
            if failure := telling.calls.failure(error):
                raise failure from error
            raise
        finally:
            telling.leave()
            await telling.close()
        return Answer(telling.output) if data is None else answer(data)


ROLES = {"user": "user", "assistant": "model"}


class Telling(Cast):
    """Tells what agents do: the one that was asked, and those below it."""

    def __init__(self, context: RunContext, name: str) -> None:
        super().__init__(context, name)
        self._streamed = set[str]()
        self._error: str | None = None
        self._waiting: list[tuple[RunContext, types.FunctionCall]] = []
        self._refused: dict[str | None, str] = {}
        self._reached: list[tuple[elicitation.Asker, partial[RunContext]]] = []
        self.output = ""

    def reach(self, name: str, manager: Any) -> None:
        """Let a server of an agent's tools ask, by whoever keeps its sessions: nobody else knows who is asked."""
        if f"_{elicitation.CALLBACK}" in (options := vars(manager) if manager else {}):
            about = getattr(manager, "_connection_params", None)
            patience = getattr(about, "sse_read_timeout", None) or getattr(about, "timeout", None)
            said = {elicitation.CALLBACK: options[f"_{elicitation.CALLBACK}"]}
            if asker := elicitation.reach(said, patience):
                options[f"_{elicitation.CALLBACK}"] = asker
                asker.begin(user := partial(self.context, name))
                self._reached.append((asker, user))

    def leave(self) -> None:
        """Ask no more."""
        for asker, user in self._reached:
            asker.end(user)

    async def hear(self, event: Event) -> None:
        """Take in what happened."""
        self._error = event.error_code or self._error  # if it was an exception, that comes by itself
        context = self._context = self.context(event.author)
        words = await self._say(context, event)
        for call in () if event.partial else event.get_function_calls():
            if call.name == CONFIRMATION:
                self._waiting.append((context, call))
            else:
                context.tool_calls.begin(call.name or "", call.args or {}, call.id or "")
        for response in event.get_function_responses():
            if response.id in event.actions.requested_tool_confirmations:
                continue  # it was not called yet, and that is no result
            if set(response.response or ()) == {"error"}:
                context.tool_calls.fail(response.id or "", self._refused.get(response.id, FAILED))
            else:
                context.tool_calls.end(response.id or "", _result(response.response))
        if words and event.is_final_response():
            self.output = words

    async def _say(self, context: RunContext, event: Event) -> str:
        """Tell the words of an event; the whole that follows its pieces is told no second time."""
        parts = [part for part in (event.content and event.content.parts) or () if part.text]
        if event.partial or event.author not in self._streamed:
            for part in parts:
                await (context.think(part.text) if part.thought else context.say(part.text))
        if event.partial:
            self._streamed.add(event.author)
        else:
            self._streamed.discard(event.author)
        return "" if event.partial else "".join(part.text for part in parts if not part.thought)

    async def settle(self) -> list[types.Part]:
        """Ask about all calls that wait for approval, and return what is to be answered."""
        waiting, self._waiting = self._waiting, []
        return list(await asyncio.gather(*(self._settle(context, call) for context, call in waiting)))

    async def _settle(self, context: RunContext, call: types.FunctionCall) -> types.Part:
        asked = (call.args or {}).get("originalFunctionCall", {})
        hint = (call.args or {}).get("toolConfirmation", {}).get("hint", "")
        call_id, tool = asked.get("id", ""), asked.get("name", "tool")
        reply = await context.questions.approval(tool, asked.get("args") or {}, call_id, _hint(hint), is_halted=True)
        if why := refusal(reply):
            self._refused[call_id] = why
        response = types.FunctionResponse(id=call.id, name=CONFIRMATION, response={"confirmed": not why})
        return types.Part(function_response=response)

    def finish(self) -> None:
        """Tell that whoever spoke last is done, and so are the others. Raises ModelError."""
        if self._error in REFUSALS:
            raise ModelError(failures.REFUSED)
        if self._error and not self.output:
            raise ModelError(failures.CONFUSED, retryable=True)
        self._root.sub_agents.end(self._context, self.output)
        self._root.sub_agents.finish()


class Metered(BasePlugin):
    """Counts what each call to a model took."""

    def __init__(self, telling: Telling) -> None:
        super().__init__(APP)
        self._telling = telling

    async def before_model_callback(self, *, callback_context: Any, llm_request: LlmRequest) -> None:
        """Hear that a model is called."""
        name = callback_context.agent_name
        self._telling.calls.begin(name, self._telling.context(name), (llm_request.model or "unknown").split("/")[-1])

    async def after_model_callback(self, *, callback_context: Any, llm_response: LlmResponse) -> None:
        """Hear what it says, and that it has ended."""
        name, usage = callback_context.agent_name, llm_response.usage_metadata
        if llm_response.partial:
            self._telling.calls.hear_word(name)
            return
        await self._telling.calls.end(
            name,
            llm_response.model_version,
            input_tokens=(usage and usage.prompt_token_count) or 0,
            output_tokens=(usage and usage.candidates_token_count) or 0,
            cached_input_tokens=(usage and usage.cached_content_token_count) or 0,
        )

    async def on_model_error_callback(
        self, *, callback_context: Any, llm_request: LlmRequest, error: Exception
    ) -> None:
        """Hear that it has failed."""
        await self._telling.calls.fail(callback_context.agent_name)


class Scripted(BaseLlm):
    """A model that calls a tool, and then says a few words."""

    async def generate_content_async(
        self,
        llm_request: LlmRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - the kit's interface
    ) -> AsyncGenerator[LlmResponse, None]:
        """Answer."""
        last = (llm_request.contents[-1].parts or [])[-1]
        if last.function_response is None:
            call = types.FunctionCall(id="call_1", name=rehearsal.TOOL, args=rehearsal.ARGUMENTS)
            yield _said(types.Part(function_call=call))
            return
        for word in rehearsal.WORDS:
            yield _said(types.Part(text=word), partial=True)
        yield _said(types.Part(text="".join(rehearsal.WORDS)))


def _reach(telling: Telling, agent: BaseAgent) -> None:
    """Let servers of tools ask the run's user."""
    servers = sys.modules.get("google.adk.tools.mcp_tool.mcp_toolset")  # nobody has any whose module was not imported
    for toolset in getattr(agent, "tools", ()) if servers else ():
        if isinstance(toolset, servers.McpToolset):
            telling.reach(agent.name, getattr(toolset, "_mcp_session_manager", None))
    for below in agent.sub_agents:
        _reach(telling, below)


def _hint(hint: str) -> str:
    """Return what a tool's author says about it; what the kit says by itself is for developers."""
    return "" if hint.startswith("Please approve or reject the tool call") else hint


def _said(part: types.Part, **about: Any) -> LlmResponse:
    return LlmResponse(content=types.Content(role="model", parts=[part]), **about)


def _result(response: dict[str, Any] | None) -> Any:
    """Return what a tool returned: what is no dictionary, the kit puts into one."""
    return response["result"] if response and set(response) == {"result"} else response


REFUSALS = frozenset({"SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "RECITATION", "SPII"})
