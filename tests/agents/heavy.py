"""A module that takes much memory at its import."""

from engine_service import Agent, RunContext

HOARD = bytearray(700 * 1024 * 1024)


class Heavy(Agent):
    """Takes some more, as it is told in MiB."""

    async def run(self, context: RunContext, input: str) -> str:
        return str(len(bytearray(int(input) * 1024 * 1024)) + len(HOARD))
