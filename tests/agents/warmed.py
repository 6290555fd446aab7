"""Agents that warm up, well and badly."""

import asyncio
import os
import socket

from engine_service import Agent, RunContext

WARMED: list[tuple[str, int]] = []


class Base(Agent):
    """Warms up for all that have it from here."""

    public = False
    kept: socket.socket | None = None

    @classmethod
    async def warm_up(cls) -> None:
        """Remember where, and leave a task and a connection behind."""
        WARMED.append((cls.__name__, os.getpid()))
        cls.task = asyncio.create_task(asyncio.sleep(3600))  # type: ignore[attr-defined]
        if port := os.environ.get("WARM_UP_CONNECTS_TO"):
            Base.kept = socket.create_connection(("127.0.0.1", int(port)))

    async def run(self, context: RunContext, input: str) -> str:
        """Say where it was, and try to speak through what was left open."""
        said = ""
        if Base.kept:
            try:
                Base.kept.sendall(b"from a run")
                said = "spoke"
            except OSError as error:
                said = type(error).__name__
        [(name, process)] = WARMED
        return f"{name} {process == os.getppid()} {said}"


class One(Base):
    """The first."""

    public = True


class Other(Base):
    """The second."""

    public = True
