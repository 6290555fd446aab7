"""Agents that save what another engine goes on from."""

import asyncio
import os
from pathlib import Path

from engine_service import Agent, Declined, RunContext


class Saver(Agent):
    """Counts, says with every number which run it is, and saves after every few."""

    async def run(self, context: RunContext, input: str) -> str:
        asked = context.parameters
        state = context.restored or {"next": 0}
        for number in range(state["next"], int(asked.get("times", 10))):
            await context.say(f"{asked.get('text', f'{context.run_id} ')}{number}")
            await asyncio.sleep(asked.get("pause", 0))
            if (number + 1) % int(asked.get("every", 1)) == 0:
                await context.checkpoint({"next": number + 1})
        return f"{os.getpid()}"


class TaskSaver(Saver):
    """Saves where there is nobody to save for."""

    isolation = "task"


class Dweller(Agent):
    """Saves, and is then in the middle of things: a tool, a sub-agent, and a question."""

    async def run(self, context: RunContext, input: str) -> str:
        first = context.restored is None
        await context.say("first" if first else f"again from {context.restored}")
        await context.count("small", input_tokens=10, output_tokens=1)
        if first:
            await context.checkpoint({"step": 1})
        await context.say(f"key {context.idempotency_key(stay, amount=40)}")
        await context.say(f"key {context.idempotency_key(stay, amount=40)}")
        for call in context.interrupted:
            await context.report("interrupted", call._asdict())
        if first:
            await asyncio.gather(
                context.call(stay, amount=40),
                context.delegate("below", "Stay"),
                context.ask("Which one?", {"one": {"type": "string"}}),
            )
        try:
            await context.approve(pay, amount=40)
        except Declined:
            await context.say("declined")
        if "other" in context.parameters:
            await context.checkpoint({"step": 2})
        return str((await context.ask("Which one?", {"one": {"type": "string"}})).content["one"])


class Below(Agent):
    """Stays with a tool of its own."""

    public = False

    async def run(self, context: RunContext, input: str) -> str:
        await context.call(stay, amount=1)
        return ""


async def stay(amount: int) -> None:  # noqa: ARG001 - a tool's
    await asyncio.Event().wait()


def pay(amount: int) -> str:
    return f"paid {amount}"


class Stubborn(Agent):
    """Saves once, and then its process ends its engine's."""

    async def run(self, context: RunContext, input: str) -> str:
        if context.restored is None:
            await context.checkpoint({"pid": os.getpid()})
        await context.say(str(os.getpid()))
        Path(context.parameters["file"]).write_text(str(os.getpid()), encoding="utf-8")
        await asyncio.Event().wait()
        return ""


class Wrong(Agent):
    """Saves what cannot be saved."""

    async def run(self, context: RunContext, input: str) -> str:
        for state in ({1: 2}, (1, 2), float("nan"), object(), "x" * (256 * 1024)):
            try:
                await context.checkpoint(state)
            except ValueError as error:
                await context.say(f"{error}\n")
        await context.delegate("below_wrong", "")
        return "done"


class BelowWrong(Agent):
    """Is not the one that is started again."""

    public = False

    async def run(self, context: RunContext, input: str) -> str:
        try:
            await context.checkpoint({})
        except RuntimeError as error:
            await context.say(str(error))
        return ""


class LongWinded(Agent):
    """Saves, calls a tool that stays, and says much."""

    async def run(self, context: RunContext, input: str) -> str:
        await context.checkpoint({})
        if context.restored is not None:
            await asyncio.Event().wait()
        staying = asyncio.create_task(context.call(stay, amount=3))
        for _ in range(60):
            await context.say("x" * 50_000)
        await context.report("done")
        await staying
        return ""


class Resisting(Agent):
    """Saves, and goes on for a while when it is told to stop."""

    async def run(self, context: RunContext, input: str) -> str:
        if context.restored is None:
            await context.checkpoint({})
            await context.say("saved")
        try:
            await asyncio.Event().wait()
        finally:
            await context.checkpoint({"step": 2})  # returns at once: there will be no other attempt
            await asyncio.sleep(1)
        return ""


class Once(Agent):
    """Saves once, and goes on for as long as it is told."""

    async def run(self, context: RunContext, input: str) -> str:
        if context.restored is None:
            await asyncio.sleep(context.parameters.get("before", 0))
            await context.checkpoint({})
        for tick in range(int(context.parameters.get("ticks", 20))):
            await context.say(str(tick))
            await asyncio.sleep(0.1)
        return ""
