"""An agent that wants to run where there is no place."""

from engine_service import Agent, RunContext


class Elsewhere(Agent):
    """Wants the moon."""

    isolation = "moon"  # type: ignore[assignment]

    async def run(self, context: RunContext, input: str) -> str:
        return input
