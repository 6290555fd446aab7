"""Agents that keep files, wherever their runs are."""

import os
from typing import ClassVar, Literal

from engine_service import Agent, RunContext

Isolation = Literal["process", "jail", "task"]


class Keeping(Agent):
    """Keeps a file in its run's own folder, and says where that is."""

    isolation: ClassVar[Isolation | None] = "process"

    async def run(self, context: RunContext, input: str) -> str:
        assert list(context.files.iterdir()) == []
        (context.files / "kept").write_text(input)
        if input == "die":
            os._exit(3)
        return str(context.files)


class KeepingAsTask(Keeping):
    """The same, as a task."""

    isolation = "task"


class KeepingInJail(Keeping):
    """The same, in a jail."""

    isolation = "jail"


class Afresh(Keeping):
    """The same, in a jail, in a process that isn't forked."""

    isolation = "jail"
    fork = False


class Delegating(Agent):
    """Hands on to whom it is told."""

    isolation: ClassVar[Isolation | None] = "process"

    async def run(self, context: RunContext, input: str) -> str:
        try:
            return await context.delegate(input, "words")
        except LookupError as error:
            return f"LookupError: {error}"


class Letting(Delegating):
    """The same, in a jail."""

    isolation = "jail"
