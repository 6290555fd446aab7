"""A web service that asks agents: pip install runwire fastapi uvicorn, and then uvicorn service:app."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from runwire.client import AgentMessage, AgentRecovered, Client, EndError, RefusedError

ENGINES = os.environ.get("ENGINES", "127.0.0.1:50051")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with Client(ENGINES, token=lambda: os.environ.get("TOKEN", "dev:service")) as app.state.client:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/agents")
async def agents() -> list[str]:
    return [agent.name for agent in await app.state.client.agents()]


@app.get("/agents/{agent}/answer")
async def answer(agent: str, question: str) -> dict[str, Any]:
    """Wait for the whole answer. It survives a lost connection, and a restart of the engine's network."""
    try:
        completed = await app.state.client.run(agent, question, resume_window=60).result()
    except RefusedError as refused:
        raise HTTPException(503 if refused.retry else 400, refused.message) from refused
    except EndError as ended:
        raise HTTPException(502, str(ended)) from ended
    return {"answer": completed.output, "data": completed.data}


@app.get("/agents/{agent}/words")
async def words(agent: str, question: str) -> StreamingResponse:
    """Give the answer as it forms. Whoever leaves ends the run."""

    async def said() -> AsyncIterator[str]:
        async for event in app.state.client.run(agent, question):
            match event:
                case AgentMessage(agent=path, delta=delta) if "/" not in path:
                    yield delta
                case AgentRecovered():
                    yield "\n(once more)\n"

    return StreamingResponse(said(), media_type="text/plain; charset=utf-8")
