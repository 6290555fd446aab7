"""Agents that say what their models took, and end in every way."""

import asyncio
import contextlib
import os

from engine_service import Agent, AgentError, ModelError, RunContext


class Counting(Agent):
    """Counts two calls, and ends as it is told to."""

    async def run(self, context: RunContext, input: str) -> str:
        await context.count("small", input_tokens=100, output_tokens=10, elapsed=0.5, to_first_word=0.25)
        await context.count("small", input_tokens=50, output_tokens=5, cached_input_tokens=40)
        await context.say("counted")
        if input == "fail":
            raise AgentError("No.")
        if input == "model":
            raise ModelError("The model is busy. Try again in a minute.", retryable=True)
        if input == "crash":
            os._exit(3)
        if input == "wait":
            await asyncio.sleep(60)
        while input == "resist":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        if input == "delegate":
            return await context.delegate("counting", "well")
        if input == "delegate to a model that fails":
            return await context.delegate("counting", "model")
        return "done"
