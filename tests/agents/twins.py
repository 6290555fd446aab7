"""Two agents of one name."""

from engine_service import Agent, RunContext


class Twin(Agent):
    """The first."""

    async def run(self, context: RunContext, input: str) -> str:
        return input


class Other(Agent):
    """The second."""

    name = "twin"

    async def run(self, context: RunContext, input: str) -> str:
        return input
