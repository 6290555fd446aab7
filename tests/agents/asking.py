"""Agents that ask their users."""

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

from engine_service import Agent, Answer, Declined, Reply, RunContext
from engine_service.wire import WAITING

ORDER = {"order": {"type": "string", "minLength": 2}, "many": {"type": "integer", "minimum": 1}}


def told(reply: Reply) -> dict[str, Any]:
    return {"outcome": reply.outcome, "content": dict(reply.content)}


class Asker(Agent):
    """Asks as many questions at once as it is told, and says what became of each."""

    async def run(self, context: RunContext, input: str) -> Answer:
        wanted: Mapping[str, Any] = context.parameters
        asking = (
            context.ask(f"Question {number}?", wanted.get("schema"), wanted.get("timeout"))
            for number in range(int(wanted.get("questions", 1)))
        )
        replies = await asyncio.gather(*asking)
        return Answer("asked", {str(number): told(reply) for number, reply in enumerate(replies)})


class Orders(Agent):
    """Asks which order."""

    async def run(self, context: RunContext, input: str) -> Answer:
        return Answer("ordered", told(await context.ask("Which order?", schema=ORDER)))


class Above(Agent):
    """Has somebody else ask, who has somebody else ask."""

    async def run(self, context: RunContext, input: str) -> str:
        below = {"above": "between", "between": "orders"}[context.agent.split("/")[-1]]
        return await context.delegate(below, input)


class Between(Above):
    """Is asked to have somebody ask."""


def pay(amount: float, to: str) -> str:
    return f"{amount} to {to}"


class Payer(Agent):
    """Pays as often as it is told, each time if that is approved of."""

    async def run(self, context: RunContext, input: str) -> Answer:
        paid = []
        for _ in range(int(context.parameters.get("times", 1))):
            try:
                paid.append(await context.approve(pay, amount=40, to="alice"))
            except Declined as declined:  # and goes on
                paid.append(str(declined))
        return Answer("done", {"paid": paid})


class Payers(Agent):
    """Wants to call two tools at once, each if its user approves of it."""

    async def run(self, context: RunContext, input: str) -> str:
        paid = await asyncio.gather(*(context.approve(pay, amount=amount, to="alice") for amount in (1, 2)))
        return " and ".join(map(str, paid))


class Changing(Agent):
    """Wants something approved of, and changes it meanwhile."""

    async def run(self, context: RunContext, input: str) -> str:
        to = ["alice"]

        async def change() -> None:
            to.append("bob")

        changing = asyncio.create_task(change())
        await context.approve(pay, amount=40, to=to)
        await changing
        return "paid"


class Opaque(Agent):
    """Wants something approved of that nobody can read."""

    async def run(self, context: RunContext, input: str) -> str:
        await context.approve(pay, amount=40, to=object())
        return "paid"


class Twins(Agent):
    """Has two of one kind ask at once."""

    async def run(self, context: RunContext, input: str) -> Answer:
        one, two = await asyncio.gather(*(context.delegate("asked", name) for name in "ab"))
        return Answer("both", {"a": one, "b": two})


class Asked(Agent):
    """Asks what it was asked."""

    public = False

    async def run(self, context: RunContext, input: str) -> str:
        return (await context.ask(input)).outcome


class Colliding(Agent):
    """Asks while a tool goes on whose id is that of another, which asks."""

    async def run(self, context: RunContext, input: str) -> str:
        below = context.sub_agents.begin("below")
        context.tool_calls.begin("goes_on", {}, "call_0")
        below.tool_calls.begin("pay", {}, "call_0")
        await below.questions.approval("pay", {}, "call_0")
        return "done"


class Chatty(Agent):
    """Tells the engine something that is for nobody else, as fast as it can, for two seconds."""

    async def run(self, context: RunContext, input: str) -> str:
        await context.say("begun")
        until = time.monotonic() + 2
        while time.monotonic() < until:
            for _ in range(1000):
                context._writer.tell(WAITING, b"")
            await context._writer.drain()
        return "done"


class Impatient(Agent):
    """Asks, and doesn't wait for the answer."""

    async def run(self, context: RunContext, input: str) -> str:
        try:
            async with asyncio.timeout(0.2):
                await context.ask("Well?")
        except TimeoutError:
            await context.say("never mind")
        return "done"


class Occupied(Agent):
    """Asks, and computes for two seconds."""

    async def run(self, context: RunContext, input: str) -> Answer:
        asking = asyncio.create_task(context.ask("Well?", timeout=context.parameters.get("timeout")))
        while not context._shared.asking._open:
            await asyncio.sleep(0)
        until = time.monotonic() + 2
        while time.monotonic() < until:
            pass
        return Answer("done", told(await asking))


class Tooled(Agent):
    """Asks inside a tool, or beside one that goes on."""

    async def run(self, context: RunContext, input: str) -> Answer:
        async def inside() -> dict[str, Any]:
            return told(await context.ask("Well?"))

        if input == "inside":
            return Answer("done", await context.call(inside))
        beside = asyncio.create_task(context.call(asyncio.sleep, delay=60))
        reply = await context.ask("Well?")
        beside.cancel()
        return Answer("done", told(reply))


class Sleeper(Agent):
    """Asks, and is busy for a while after that."""

    async def run(self, context: RunContext, input: str) -> str:
        await context.ask("Well?")
        await asyncio.sleep(float(input))
        return "slept"


class Dying(Agent):
    """Asks, and dies."""

    async def run(self, context: RunContext, input: str) -> str:
        asking = asyncio.create_task(context.ask("Well?"))
        await asyncio.sleep(0.3)
        os._exit(3)
        await asking
        return ""
