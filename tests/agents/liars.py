"""Agents whose process says what no agent of ours would: events that lie, written past the engine's own code."""

import asyncio
import time
from typing import Any

from runwire.v1 import events_pb2 as pb

from engine_service import Agent, RunContext
from engine_service.wire import EVENT, LAST, frame


class Fabulist(Agent):
    """Says one lie, or many, and then tells the truth about its end, if it didn't lie about that."""

    async def run(self, context: RunContext, input: str) -> str:
        writer: Any = context._writer
        what, _, many = input.partition(" ")

        async def say(tag: int = EVENT, at: int | None = None, agent: str = "fabulist", **kind: Any) -> None:
            writer._seq += 1
            event = pb.Event(seq=writer._seq, agent=agent, **kind)
            event.time.seconds = int(time.time()) if at is None else at
            writer._sink.write(frame(tag, event.SerializeToString()))
            await writer._sink.drain()

        match what:
            case "time":
                await say(at=10**15, tool_executing=pb.ToolExecuting(tool="t", call_id="1"))
                await say(at=-(10**15), tool_completed=pb.ToolCompleted(tool="t", call_id="1"))
            case "enum":
                await say(agent="fabulist/sub", agent_started=pb.AgentStarted())
                await say(agent="fabulist/sub", agent_failed=pb.AgentFailed(reason=99))  # type: ignore[arg-type]
            case "outcome":
                await say(input_answered=pb.InputAnswered(request_id="1", outcome=77))  # type: ignore[arg-type]
            case "nan":
                await say(tool_executing=pb.ToolExecuting(tool="t", call_id="1"))
                completed = pb.ToolCompleted(call_id="1")
                completed.result.number_value = float("nan")
                await say(tool_completed=completed)
            case "path":
                await say(agent="/" * int(many), tool_executing=pb.ToolExecuting(tool="t", call_id="1"))
            case "ids":
                for number in range(int(many)):
                    await say(tool_executing=pb.ToolExecuting(tool="t", call_id=f"{number}{'x' * 900_000}"))
            case "ending":
                await say(tag=LAST, agent_failed=pb.AgentFailed(reason=99, message="x"))  # type: ignore[arg-type]
                await asyncio.Event().wait()
        return "the truth"
