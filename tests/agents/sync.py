"""An agent that isn't async."""

from engine_service import Agent, RunContext


class Sync(Agent):
    """Blocks."""

    def run(self, context: RunContext, input: str) -> str:  # type: ignore[override]
        return input
