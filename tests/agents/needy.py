"""An agent that wants something of whoever makes it."""

from engine_service import Agent, RunContext


class Needy(Agent):
    """Needs a key."""

    def __init__(self, key: str) -> None:
        self.key = key

    async def run(self, context: RunContext, input: str) -> str:
        return input
