"""An agent of Pydantic AI, as its users write it; and one that says something all the time."""

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel

from benchmarks.real_agents import memory, work
from engine_service import RunContext

agent = Agent(OpenAIChatModel("scripted-1"), tools=[work.weather, work.parse], instructions="Answer in one sentence.")
memory.tell_at_exit()


async def ticking(context: RunContext, input: str) -> None:  # noqa: ARG001 - an agent's interface is given
    """Say something twenty times a second."""
    async for word in work.ticks():
        await context.say(word)
