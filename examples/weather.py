from engine_service import Agent, RunContext


def lookup(city: str) -> dict[str, int]:
    return {"degrees": len(city) * 3}


class Weather(Agent):
    """Answers questions about the weather."""

    async def run(self, context: RunContext, input: str) -> str:
        await context.think("Which city?")
        found = await context.call(lookup, city=input)
        await context.say(f"It is {found['degrees']} degrees.")
        return f"{found['degrees']} degrees in {input}"
