import asyncio

import grpc
from runwire.v1.engine_pb2 import RunRequest
from runwire.v1.engine_pb2_grpc import EngineServiceStub


async def main() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:50051") as channel:
        engine = EngineServiceStub(channel)
        async for response in engine.Run(RunRequest(agent="triage", input="My invoice is wrong")):
            for event in response.events:
                print(event.seq, event.agent, event.WhichOneof("kind"))


asyncio.run(main())
