import asyncio

from runwire.client import AgentMessage, Client, ToolExecuting


async def main() -> None:
    async with Client("127.0.0.1:50051", token="dev:alice") as client:
        async for event in client.run("triage", "My invoice is wrong", resume_window=60):
            match event:
                case AgentMessage(delta=delta):
                    print(delta, end="", flush=True)
                case ToolExecuting(tool=tool, arguments=arguments):
                    print(f"{tool}({arguments})")
                case _:
                    print(event.seq, event.agent, event.type)


asyncio.run(main())
