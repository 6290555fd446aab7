"""A limit: websockets, and nothing else. One event a frame, orjson, the agent in the server's process."""

import asyncio
import sys
import time

import orjson
from websockets.asyncio.server import ServerConnection, serve


async def run(socket: ServerConnection) -> None:
    """Run one agent."""
    asked = orjson.loads(await socket.recv())
    seq = 0

    async def say(kind: str, **fields: str) -> None:
        nonlocal seq
        seq += 1
        event = {"seq": seq, "time": time.time_ns(), "agent": "numbers", kind: fields}
        await socket.send(orjson.dumps(event), text=True)

    await say("agentStarted", input=asked["input"])
    if asked["input"] == "wait":
        await asyncio.Event().wait()
    for number in range(int(asked["times"])):
        await say("agentMessage", delta=f"{number} of many")
    await say("agentCompleted", output="done")


async def main() -> None:
    """Serve until told to stop."""
    async with serve(run, "127.0.0.1", int(sys.argv[1]), compression=None) as server:
        await server.serve_forever()


asyncio.run(main())
