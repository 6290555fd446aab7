"""An agent of LangGraph, as its users write it; and one that says something all the time."""

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

from benchmarks.real_agents import memory, work
from engine_service import RunContext

agent = create_agent(
    ChatOpenAI(model="scripted-1", stream_usage=True),
    [work.weather, work.parse],
    system_prompt="Answer in one sentence.",
)
memory.tell_at_exit()


async def ticking(context: RunContext, input: str) -> None:  # noqa: ARG001 - an agent's interface is given
    """Say something twenty times a second."""
    async for word in work.ticks():
        await context.say(word)
