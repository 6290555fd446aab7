"""Agents that are functions, and objects that are none."""

from engine_service import Agent, Answer, RunContext

number = 7


async def greet(context: RunContext, input: str) -> str:
    """Greets whoever asks.

    And says no more.
    """
    await context.say("hello ")
    return f"hello {input or context.user_id}"


async def both(context: RunContext, input: str) -> Answer:
    return Answer(input, {"path": context.agent})


async def lonely() -> str:
    return "nobody asks"


class Tools:
    """Something that holds an agent."""

    greet = staticmethod(greet)


class Whole(Agent):
    """An agent among functions."""

    async def run(self, context: RunContext, input: str) -> str:
        return "whole"
