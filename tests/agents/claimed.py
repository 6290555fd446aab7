"""An agent that says what it knows of whoever called."""

from engine_service import Agent, Answer, RunContext


class Claimed(Agent):
    """Says it, and waits for its user if it is asked to."""

    async def run(self, context: RunContext, input: str) -> Answer:
        if "save" in input and context.restored is None:
            await context.checkpoint({"saved": True})
        if "ask" in input:
            await context.ask("Are you there?")
        return Answer("", {"user": context.user_id, "claims": dict(context.claims)})
