"""Agents whose runs are long, or about what was said before."""

import json

from engine_service import Agent, RunContext


class Reporter(Agent):
    """Reports a number of steps, then says a number of words."""

    async def run(self, context: RunContext, input: str) -> str:
        for step in range(int(context.parameters.get("steps", 0))):
            await context.report("step", {"number": step})
        for word in range(int(context.parameters.get("words", 1))):
            await context.say(f"{input}{word} ")
        return "done"


class Witness(Agent):
    """Says what it knows of the conversation."""

    async def run(self, context: RunContext, input: str) -> str:
        said = [f"{message.role}: {message.text}" for message in context.history]
        return json.dumps({"input": input, "thread": context.thread_id, "history": said})
