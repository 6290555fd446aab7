"""What many engines ask of one Valkey: their stores, without what they run, all in this process."""

import asyncio
import resource
import statistics
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from google.protobuf.timestamp_pb2 import Timestamp
from runwire.v1 import events_pb2 as pb
from runwire.v1.engine_pb2 import RunInfo

from engine_service.stores.memory import MemoryJournals
from engine_service.stores.valkey.store import ValkeyStore
from engine_service.wire import Work, event_frame
from tests.support.valkey import Owner, Valkey, valkey

SECONDS = 5.0
WINDOW = 60.0
MIB = 1024 * 1024


def processor(server: Valkey) -> float:
    """Return the seconds of processor that a server took until now."""
    about = server.client().info("cpu")
    return float(about["used_cpu_sys"] + about["used_cpu_user"])


@asynccontextmanager
async def engines(server: Valkey, many: int) -> AsyncGenerator[list[ValkeyStore]]:
    """Have so many engines live."""
    journals = MemoryJournals(MIB, 100 * MIB, 1000 * MIB)
    per_minute = {"runs": 10**9}
    stores = [ValkeyStore(server.url, journals, per_minute, max_runs_per_user=10**6, longest=600) for _ in range(many)]
    for store in stores:
        await store.begin(Owner())  # type: ignore[arg-type]
        await asyncio.sleep(1 / many)  # engines do not begin in step
    try:
        yield stores
    finally:
        await asyncio.gather(*(store.close() for store in stores))


async def say(store: ValkeyStore, user: str, pause: float, took: list[float]) -> int:
    """Have one run say something again and again, and return how often; notice how long the store took for each."""
    work = Work(str(uuid.uuid4()), user, "counter")
    leave = await store.place(user, RunInfo(run_id=work.run_id, started=Timestamp(seconds=1)), WINDOW)
    journal = store.open(work)
    seq, until = 0, time.monotonic() + SECONDS
    while time.monotonic() < until:
        seq += 1
        event = pb.Event(
            seq=seq, agent="counter", agent_message=pb.AgentMessage(delta="some forty characters of text, as it goes")
        )
        began = time.perf_counter()
        journal.put(event_frame(event), seq)
        await journal.settle()
        took.append(time.perf_counter() - began)
        journal.acknowledge(seq)
        await asyncio.sleep(pause)
    journal.seal(RunInfo(run_id=work.run_id, last_seq=seq, is_over=True))
    leave()
    return seq


async def resting(server: Valkey, many: int) -> float:
    """Return the milliseconds of processor that engines ask for in a second which do nothing but live."""
    async with engines(server, many):
        await asyncio.sleep(1)
        before, began = processor(server), time.monotonic()
        await asyncio.sleep(SECONDS)
        return 1000 * (processor(server) - before) / (time.monotonic() - began)


async def speaking(server: Valkey, many: int, runs: int, pause: float) -> dict[str, float]:
    """Return what engines ask for whose runs say something now and then, and how long each waits for the store."""
    took: list[float] = []
    async with engines(server, many) as stores:
        before, began = processor(server), time.monotonic()
        saying = list[asyncio.Task[int]]()
        for store in stores * runs:
            saying.append(asyncio.create_task(say(store, str(uuid.uuid4()), pause, took)))
            await asyncio.sleep(0)  # nor do runs
        told = await asyncio.gather(*saying)
        spent, seconds = processor(server) - before, time.monotonic() - began
    return {
        "events a second": round(sum(told) / seconds),
        "processor, ms a second": round(1000 * spent / seconds, 1),
        "µs an event": round(1e6 * spent / sum(told), 1),
        "wait for the store, ms": round(1000 * statistics.median(took), 2),
        "… p99": round(1000 * statistics.quantiles(took, n=100)[-1], 2),
    }


def figures() -> dict[str, dict[str, float]]:
    """Measure both, with more and more engines."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    found: dict[str, dict[str, float]] = {}
    for many in (1, 100, 300, 1000):
        with valkey("--maxclients", "20000") as server:
            found[f"{many} engines that rest"] = {
                "processor, ms a second": round(asyncio.run(resting(server, many)), 1)
            }
    for many, runs, pause in ((1, 100, 0.5), (10, 50, 0.5), (100, 10, 0.5), (10, 100, 0.2)):
        with valkey("--maxclients", "20000") as server:
            name = f"{many} engines with {runs} runs each, which say something every {pause} s"
            found[name] = asyncio.run(speaking(server, many, runs, pause))
    return found


if __name__ == "__main__":
    for name, values in figures().items():
        print(f"{name:80} {values}")
