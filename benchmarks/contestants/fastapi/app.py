"""What people would write: FastAPI, the agent in the web process, one WebSocket a run, pydantic models as JSON."""

import asyncio
import datetime
import time

from fastapi import FastAPI, WebSocket
from pydantic import BaseModel

app = FastAPI()


class AgentStarted(BaseModel):
    """The run began."""

    threadId: str = ""
    input: str = ""


class AgentMessage(BaseModel):
    """A piece of the answer."""

    delta: str


class AgentCompleted(BaseModel):
    """The run ended."""

    output: str


class Event(BaseModel):
    """One thing that happened."""

    seq: int
    time: datetime.datetime
    agent: str
    agentStarted: AgentStarted | None = None
    agentMessage: AgentMessage | None = None
    agentCompleted: AgentCompleted | None = None


@app.websocket("/run")
async def run(socket: WebSocket) -> None:
    """Run one agent."""
    await socket.accept()
    asked = await socket.receive_json()
    seq = 0

    async def say(**kind: BaseModel) -> None:
        nonlocal seq
        seq += 1
        event = Event(seq=seq, time=datetime.datetime.now(datetime.UTC), agent="numbers", **kind)
        await socket.send_text(event.model_dump_json(exclude_none=True))

    await say(agentStarted=AgentStarted(input=asked["input"]))
    if asked["input"] == "wait":
        await say(agentMessage=AgentMessage(delta="waiting"))
        await asyncio.Event().wait()
    if asked["input"] == "busy":
        await say(agentMessage=AgentMessage(delta="busy"))
        until = time.monotonic() + 2
        while time.monotonic() < until:
            pass
    if asked["input"] == "tick":
        for number in range(40):
            await say(agentMessage=AgentMessage(delta=str(number)))
            await asyncio.sleep(0.05)
    for number in range(int(asked["times"])):
        await say(agentMessage=AgentMessage(delta=f"{number} of many"))
    await say(agentCompleted=AgentCompleted(output="done"))
    await socket.close()
