"""Agents that make every kind of span, and one that uses OpenTelemetry itself."""

import os

from opentelemetry import trace

from engine_service import Agent, AgentError, Answer, RunContext


def add(one: int, other: int) -> int:
    return one + other


def fail() -> None:
    raise AgentError("That does not work: secret-error.")


class Traced(Agent):
    """Calls tools and a model, asks, and has others do the same."""

    async def run(self, context: RunContext, input: str) -> str:
        await context.think("secret-thought")
        await context.call(add, one=1, other=2)
        try:
            await context.call(fail)
        except AgentError:
            await context.say("secret-word")
        await context.count("small-1", input_tokens=7, output_tokens=3, elapsed=0.05, to_first_word=0.01)
        if input == "ask":
            await context.ask("secret-question")
        return await context.delegate("below", "secret-order")


class Below(Agent):
    """Does a little, below another."""

    async def run(self, context: RunContext, input: str) -> str:
        await context.call(add, one=3, other=4)
        if "fail" in input:
            raise AgentError("secret-failure")
        return "secret-answer"


class Own(Agent):
    """Says which span OpenTelemetry takes for the current one, and what the environment says."""

    async def run(self, context: RunContext, input: str) -> Answer:
        known = trace.get_current_span().get_span_context()
        current = f"00-{known.trace_id:032x}-{known.span_id:016x}-{known.trace_flags:02x}"
        return Answer("", {"current": current, "environment": os.environ.get("TRACEPARENT", "")})


class TaskOwn(Own):
    """The same, in the engine's process."""

    isolation = "task"


class Liar(Agent):
    """Tells times that cannot be, and names without end."""

    async def run(self, context: RunContext, input: str) -> str:
        for elapsed in (1e9, 0.0):
            await context.count("m" * 100_000, input_tokens=2**31, elapsed=elapsed)
        for _ in range(int(input or 0)):
            await context.call(add, one=1, other=1)
        return ""
