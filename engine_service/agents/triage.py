"""Agents that take care of a support request. They need no model and no key, and show every kind of event."""

import asyncio
import re
from contextlib import suppress
from typing import Any

from engine_service import Agent, AgentError, Answer, Declined, RunContext
from engine_service.agents.knowledge import search

MONEY = re.compile(r"\bmoney back\b", re.IGNORECASE)
"""What somebody writes for whom a person has to decide."""
PACE = 0.015
"""Seconds between two words, as a person reads them."""


async def classify(request: str, articles: list[dict[str, Any]]) -> dict[str, Any]:
    """Tell which team a request is for, and how urgent it is."""
    urgent = bool(re.search(r"\b(urgent|now|immediately|asap|broken|down|lost|crash\w*)\b|!", request, re.IGNORECASE))
    return {"team": articles[0]["team"] if articles else "frontdesk", "urgency": "high" if urgent else "normal"}


def pay_back(invoice: str, amount: float, currency: str) -> dict[str, str]:
    """Pay an invoice back. Here, nobody has paid it."""
    return {"reference": f"PB-{invoice}", "paid": f"{amount:.2f} {currency}"}


class Triage(Agent):
    """Takes a support request, looks it up, and has it answered by whoever knows."""

    parameters_schema = {
        "type": "object",
        "properties": {
            "pace": {"type": "number", "minimum": 0, "default": 0.3, "description": "Seconds between two words."}
        },
    }

    async def run(self, context: RunContext, input: str) -> Answer:
        """Look up, classify, delegate, answer."""
        await context.think("Let me see what this is about. ")
        articles = await context.call(search, request=input)
        found = await context.call(classify, request=input, articles=articles)
        await context.think(f"This is for {found['team']}, and the urgency is {found['urgency']}. ")
        await context.report("classified", found)

        # Two look at it at once: whoever knows the articles, and whoever remembers old cases. The first is enough.
        remembering = asyncio.create_task(context.delegate("historian", input))
        try:
            if MONEY.search(input):
                answer = await context.delegate("cashier", input)
            else:
                answer = await context.delegate("resolver", articles[0]["title"] if articles else input)
        except AgentError as error:
            await context.think(f"The resolver says: {error} Then somebody else has to. ")
            answer = await context.delegate("frontdesk", input)
        finally:
            remembering.cancel()
            with suppress(asyncio.CancelledError, AgentError):
                await remembering

        for word in re.findall(r"\S+\s*", answer):
            await context.say(word)
            await asyncio.sleep(float(context.parameters.get("pace", PACE)))
        return Answer(answer, found)


class Resolver(Agent):
    """Answers from an article of the knowledge base."""

    public = False

    async def run(self, context: RunContext, input: str) -> str:
        """Read the best article."""
        await context.think("Is there an article? ")
        articles = await context.call(search, request=input, limit=1)
        if not articles:
            raise AgentError("There is no article about this.")
        return f"{articles[0]['body']}"


class Cashier(Agent):
    """Pays back what its user approves of."""

    public = False

    async def run(self, context: RunContext, input: str) -> str:  # noqa: ARG002 - there is one invoice
        """Ask, and pay back what was approved of, as it was."""
        await context.think("That is money: a person has to approve of it. ")
        try:
            paid = await context.approve(pay_back, invoice="2026-1042", amount=40.0, currency="EUR")
        except Declined:
            return "Nothing was paid back: you did not approve of it."
        return f"{paid['paid']} are on their way back to you, by the reference {paid['reference']}."


class Frontdesk(Agent):
    """Answers whatever nobody else does."""

    public = False

    async def run(self, context: RunContext, input: str) -> str:  # noqa: ARG002 - it has only one answer
        """Promise that a person will look at it."""
        await context.think("A person has to look at this. ")
        return "Thank you for writing to us. A colleague will look at this today, and write back to you."


class Historian(Agent):
    """Remembers how old cases went, but slowly."""

    public = False

    async def run(self, context: RunContext, input: str) -> str:  # noqa: ARG002 - it reads everything
        """Read old cases until told to stop."""
        await context.think("Going through the cases of the last years. ")
        await asyncio.sleep(60)
        return "There was no such case."
