"""An agent in the engine's own process whose libraries log."""

import asyncio
import logging

from engine_service import Agent, RunContext


class Chatty(Agent):
    """Calls a library that logs, as HTTP clients do."""

    isolation = "task"

    async def run(self, context: RunContext, input: str) -> str:
        await asyncio.sleep(0.01)
        logging.getLogger("httpx").info("HTTP Request: %s", input)
        return "done"
