"""What people would use instead: FastAPI, with the agent in the web process, one WebSocket a run."""

import asyncio
import time

from fastapi import FastAPI, WebSocket

app = FastAPI()


@app.websocket("/ticker")
async def ticker(socket: WebSocket) -> None:
    """Say something 20 times a second."""
    await socket.accept()
    for tick in range(36):
        await socket.send_json({"delta": str(tick)})
        await asyncio.sleep(0.05)
    await socket.close()


@app.websocket("/busy")
async def busy(socket: WebSocket) -> None:
    """Compute for two seconds without awaiting anything."""
    await socket.accept()
    await socket.send_json({"delta": "busy"})
    until = time.monotonic() + 2
    while time.monotonic() < until:
        pass
    await socket.close()
