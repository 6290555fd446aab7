"""A limit: grpc.aio, and nothing else. One event a message, the agent in the server's process."""

import asyncio
import sys
import time
from typing import Any

import grpc
import grpc.aio
from runwire.v1 import engine_pb2, events_pb2


async def run(request: engine_pb2.RunRequest, context: Any) -> None:
    """Run one agent."""
    seq = 0

    async def say(**kind: Any) -> None:
        nonlocal seq
        seq += 1
        event = events_pb2.Event(seq=seq, agent="numbers", **kind)
        event.time.FromNanoseconds(time.time_ns())
        await context.write(engine_pb2.RunResponse(run_id=request.run_id, events=[event]))

    await say(agent_started=events_pb2.AgentStarted(input=request.input))
    if request.input == "wait":
        await asyncio.Event().wait()
    for number in range(int(request.parameters["times"])):
        await say(agent_message=events_pb2.AgentMessage(delta=f"{number} of many"))
    await say(agent_completed=events_pb2.AgentCompleted(output="done"))


async def main() -> None:
    """Serve until told to stop."""
    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(
        run, engine_pb2.RunRequest.FromString, engine_pb2.RunResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("runwire.v1.EngineService", {"Run": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
