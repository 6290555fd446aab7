"""An agent that cannot warm up."""

from engine_service import Agent, RunContext


class Cold(Agent):
    """Needs what isn't there."""

    @classmethod
    async def warm_up(cls) -> None:
        """Look for it."""
        raise FileNotFoundError("no such index")

    async def run(self, context: RunContext, input: str) -> str:
        """Never."""
        return ""
