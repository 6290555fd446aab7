"""The largest gap in a user's stream of 20 events a second, while another user's agent computes for two seconds."""

import asyncio
import itertools
import socket as sockets
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from websockets.asyncio.client import connect

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.clients import JSON, opening, socket
from tests.support.services import both

FASTAPI = ROOT / ".venv-fastapi" / "bin" / "uvicorn"
ROUNDS = 3


async def gap(busy: AsyncIterator[object], ticks: AsyncIterator[object]) -> float:
    """Return the largest gap between two ticks; the busy one begins after the first."""
    arrivals: list[float] = []
    computing: asyncio.Task[object] | None = None
    async for _ in ticks:
        arrivals.append(time.monotonic())
        computing = computing or asyncio.create_task(drained(busy))
    if computing:
        await computing
    return max(later - earlier for earlier, later in itertools.pairwise(arrivals))


async def drained(stream: AsyncIterator[object]) -> object:
    """Read a stream to its end."""
    return [each async for each in stream]


async def runwire(address: str) -> float:
    """Measure Runwire, through its gateway."""

    async def stream(agent: str, user: str) -> AsyncIterator[object]:
        async with socket(address) as connection:
            await connection.send(opening(JSON, agent, user=user, parameters={"ticks": 36}))
            async for frame in connection:
                if "agentMessage" in str(frame):
                    yield frame

    return await gap(stream("busy", "alice"), stream("ticker", "bob"))


async def fastapi(address: str) -> float:
    """Measure FastAPI."""

    async def stream(path: str) -> AsyncIterator[object]:
        async with connect(f"ws://{address}/{path}") as connection:
            async for frame in connection:
                yield frame

    return await gap(stream("busy"), stream("ticker"))


async def measure() -> dict[str, list[float]]:
    """Measure both in turn, several times."""
    with sockets.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host, _, port = address.partition(":")
    command = [FASTAPI, "fastapi_app:app", "--host", host, "--port", port, "--log-level", "error"]
    gaps: dict[str, list[float]] = {"Runwire": [], "FastAPI, agent in the web process": []}
    with both() as (_, front), subprocess.Popen(command, cwd=Path(__file__).parent) as other:
        try:
            while not serves(host, int(port)):  # noqa: ASYNC110 - another process has no event of ours
                await asyncio.sleep(0.1)
            for _ in range(ROUNDS):
                gaps["Runwire"].append(await runwire(front.address))
                gaps["FastAPI, agent in the web process"].append(await fastapi(address))
        finally:
            other.terminate()
    return gaps


def serves(host: str, port: int) -> bool:
    """Tell whether somebody listens."""
    with sockets.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def main() -> None:
    """Print a table."""
    print("largest gap in a neighbour's stream of 20 events/s, beside an agent that computes for 2 s")
    for name, gaps in asyncio.run(measure()).items():
        spread = f"{min(gaps) * 1000:.0f} to {max(gaps) * 1000:.0f}"
        print(f"  {name:36} {statistics.median(gaps) * 1000:6.0f} ms   ({spread})")


if __name__ == "__main__":
    main()
