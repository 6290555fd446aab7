"""An agent that is shown in pictures: its model is scripted, and takes the time that a real one does."""

import asyncio
import re

from engine_service import Agent, RunContext
from engine_service.agents.knowledge import search

ANSWER = """Your invoice is wrong, and **we correct it**. This is what happens now:

1. Open the invoice under `Billing`, and choose *Dispute*.
2. We correct it within two working days.
3. A new one is sent to you, with this reference:

```
INV-2026-1042-B
```
"""


class Clerk(Agent):
    """Answers requests with a model, and looks things up."""

    async def run(self, context: RunContext, input: str) -> str:
        await context.think("What is this about? An invoice. ")
        await model(context, 0.35, 412, 18)
        looked_up, checked = await asyncio.gather(
            context.call(search, request=input), context.delegate("auditor", "INV-2026-1042")
        )
        await context.report("found", {"articles": len(looked_up), "audit": checked})
        await model(context, 0.25, 1280, 164)
        for word in re.findall(r"\S+\s*", ANSWER):
            await context.say(word)
            await asyncio.sleep(0.045)
        return ANSWER


class Auditor(Agent):
    """Checks an invoice."""

    public = False

    async def run(self, context: RunContext, input: str) -> str:
        await context.think("Let me compare it with the order. ")
        await context.call(order_of, invoice=input)
        await model(context, 0.4, 620, 31)
        return "off by 12.00 EUR"


async def order_of(invoice: str) -> dict[str, object]:
    await asyncio.sleep(0.2)
    return {"invoice": invoice, "ordered": 3, "charged": 4}


async def model(context: RunContext, seconds: float, given: int, said: int) -> None:
    await asyncio.sleep(seconds)
    about = {"input_tokens": given, "output_tokens": said, "elapsed": seconds, "to_first_word": seconds / 3}
    await context.count("gpt-scripted", **about)  # type: ignore[arg-type]
