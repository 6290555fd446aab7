"""An agent that says what pages have stumbled over."""

import json
import os

from engine_service import Agent, RunContext

SAYS = {
    "markup": "<img src=x onerror=alert(1)><script>alert(1)</script> [click](javascript:alert(1)) <a href=x>y</a>",
    "controls": "".join(map(chr, range(32))) + "\x7f\x9b31m\u202egnp.exe\u2066\u200b\ufeff\ufffe",
    "long": "x" * 1_000_000,
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 " + "\U0001f600" * 500 + "z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚" * 50,
    "right to left": "שלום עולם, מה שלומך? (123) مرحبا بالعالم",
}


class Nasty(Agent):
    """Says it as an answer, a thought, a tool's name, its arguments, and a report."""

    async def run(self, context: RunContext, input: str) -> str:
        said = SAYS[input]

        def tool(text: str) -> str:
            return text

        tool.__name__ = said[:100]
        await context.think(said[:100_000])
        await context.call(tool, text=said[:100_000])
        await context.report(said[:100], {said[:100]: said[:1000]})
        for at in range(0, len(said), 50_000):
            await context.say(said[at : at + 50_000])
        return said[:500_000]


class Repeater(Agent):
    """Says all that it was asked, so that no quoting can change it."""

    async def run(self, context: RunContext, input: str) -> str:
        history = [[message.role, message.text] for message in context.history]
        asked = {"input": input, "history": history, "parameters": dict(context.parameters), "user": context.user_id}
        return json.dumps(asked, sort_keys=True).encode().hex()


class Tracer(Agent):
    """Says which trace its process is part of."""

    async def run(self, context: RunContext, input: str) -> str:
        return os.environ["TRACEPARENT"]


class OddlyAsking(Agent):
    """Asks for what a browser's field cannot be told."""

    async def run(self, context: RunContext, input: str) -> str:
        schema = {"it": {"type": "string", "minLength": 1, "maxLength": 2**31 - 1, "title": 7, "description": ["a"]}}
        return (await context.ask("What?", schema=schema)).outcome
