"""A web service that asks agents: pip install runwire fastapi uvicorn, and then uvicorn service:app."""

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse

from runwire.client import AgentCompleted, AgentMessage, AgentRecovered, Client, InputRequested, RunwireError

ENGINES = os.environ.get("ENGINES", "127.0.0.1:50051")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with Client(ENGINES, token=lambda: os.environ.get("TOKEN", "dev:service")) as app.state.client:
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(RunwireError)
async def refused(_: Request, error: RunwireError) -> JSONResponse:
    return JSONResponse({"detail": error.message}, 503 if error.retry else 400)


@app.get("/agents")
async def agents() -> list[str]:
    return [agent.name for agent in await app.state.client.agents()]


@app.get("/agents/{agent}/answer")
async def answer(agent: str, question: str) -> dict[str, Any]:
    """Wait for the whole answer. It survives a lost connection, and a restart of the engine's network."""
    run = app.state.client.run(agent, question, resume_window=60)
    async with aclosing(aiter(run)) as events:
        async for event in events:
            if isinstance(event, InputRequested):  # nobody is here to decide; chat/ is a page where somebody is
                await run.cancel()
                raise HTTPException(409, event.message)
            if event.is_end and isinstance(event, AgentCompleted):
                return {"answer": event.output, "data": event.data}
    raise HTTPException(502, getattr(event, "message", "The run was cancelled."))


@app.get("/agents/{agent}/words")
async def words(agent: str, question: str) -> StreamingResponse:
    """Give the answer as it forms. Whoever leaves ends the run."""
    events = aiter(app.state.client.run(agent, question))
    await anext(events)  # it has begun, or is refused

    async def said() -> AsyncIterator[str]:
        async with aclosing(events):
            async for event in events:
                match event:
                    case AgentMessage(agent=path, delta=delta) if "/" not in path:
                        yield delta
                    case AgentRecovered():
                        yield "\n(once more)\n"
                    case InputRequested(message=message):
                        yield message
                        return

    return StreamingResponse(said(), media_type="text/plain; charset=utf-8")
