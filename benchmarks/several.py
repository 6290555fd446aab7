"""What a shared store costs: engines in memory beside engines that share a Valkey, in one run, turn by turn."""

import asyncio
import json
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from runwire.v1.engine_pb2 import AnswerRequest
from runwire.v1.events_pb2 import INPUT_OUTCOME_DECLINED

from tests.support.clients import Caller, caller, taken
from tests.support.services import Service
from tests.support.services import engine as start_engine
from tests.support.valkey import valkey

ROUNDS = 5
STREAMS, EVENTS = 10, 20_000
READ = 10_000
LONG = Duration(seconds=60)
RESULTS = Path(__file__).with_name("several.json")
OPTIONS = {"MAX_RUNS_PER_USER": "100", "RUNS_PER_MINUTE": "1000000"}


async def told(user: Caller, agent: str, **fields: object) -> float:
    """Return the seconds that a resumable run takes, from being asked for to its end."""
    began = time.perf_counter()
    events = await taken(user.call(agent, run_id=str(uuid.uuid4()), resume_window=LONG, **fields))  # type: ignore[arg-type]
    assert events[-1].HasField("agent_completed"), events[-1]
    return time.perf_counter() - began


async def events_per_second(here: Caller, _: Caller) -> float:
    """Let ten runs say what they have, as fast as they can."""
    began = time.perf_counter()
    await asyncio.gather(*(told(here, "counter", parameters={"times": EVENTS}) for _ in range(STREAMS)))
    return STREAMS * EVENTS / (time.perf_counter() - began)


async def first_event(here: Caller, _: Caller) -> float:
    """Wait for the first event of one run after the other, in milliseconds."""
    took = []
    for _ in range(30):
        began = time.perf_counter()
        call = here.call("waiter", run_id=(run_id := str(uuid.uuid4())), resume_window=LONG)
        await taken(call, 1)
        took.append(time.perf_counter() - began)
        await here.cancel(run_id)
        await taken(call)
        await asyncio.sleep(0.02)  # a process waits again
    return 1000 * statistics.median(took)


async def one_batch(here: Caller, _: Caller) -> float:
    """Answer a question, and wait for the event that says so, in milliseconds."""
    took = []
    for _ in range(30):
        call = here.call("orders", run_id=(run_id := str(uuid.uuid4())), resume_window=LONG)
        asked = (await taken(call, 2))[1].input_requested.request_id
        answer = AnswerRequest(run_id=run_id, request_id=asked, outcome=INPUT_OUTCOME_DECLINED)
        began = time.perf_counter()
        await asyncio.gather(here.stub.Answer(answer, metadata=here.metadata), taken(call, 3))
        took.append(time.perf_counter() - began)
        await taken(call)
    return 1000 * statistics.median(took)


async def resumed(here: Caller, there: Caller) -> float:
    """Read a run of ten thousand events again, at another engine where there is one, in milliseconds."""
    run_id = str(uuid.uuid4())
    await taken(here.call("counter", run_id=run_id, resume_window=LONG, parameters={"times": READ}))
    began = time.perf_counter()
    events = await taken(there.resume(run_id))
    assert len(events) == READ + 2
    return 1000 * (time.perf_counter() - began)


MEASURES: dict[str, Callable[[Caller, Caller], Awaitable[float]]] = {
    f"events a second, {STREAMS} resumable runs at once": events_per_second,
    "first event, ms": first_event,
    "from an answer to the event that says so, ms": one_batch,
    f"{READ:,} events read again, ms": resumed,
}


async def measure(alone: Service, one: Service, other: Service) -> dict[str, list[tuple[float, float]]]:
    """Take each figure of both, turn by turn."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in MEASURES}
    async with caller(alone.address) as memory, caller(one.address) as here, caller(other.address) as there:
        for _ in range(ROUNDS):
            for name, take in MEASURES.items():
                found[name].append((await take(memory, memory), await take(here, there)))
    return found


async def lost(one: Service, other: Service) -> float:
    """Kill an engine: seconds until a reader at another one hears how its run ended."""
    async with caller(one.address) as here, caller(other.address) as there:
        run_id = str(uuid.uuid4())
        await taken(here.call("waiter", run_id=run_id, resume_window=LONG), 2)
        reading = there.resume(run_id, 2)
        await anext(aiter(reading))
        began = time.perf_counter()
        one.kill()
        assert len(await taken(reading)) == 1
        return time.perf_counter() - began


async def gone_on(one: Service, other: Service, end: Callable[[], None]) -> float:
    """End an engine: seconds until a reader at another one hears the first thing from there."""
    async with caller(one.address) as here, caller(other.address) as there:
        run_id, asked = str(uuid.uuid4()), {"times": 1000, "pause": 0.02}
        seen = await taken(here.call("saver", run_id=run_id, resume_window=LONG, parameters=asked), 10)
        reading = there.resume(run_id, seen[-1].seq)
        await anext(aiter(reading))
        began = time.perf_counter()
        end()
        async for response in reading:
            if any(event.HasField("agent_recovered") for event in response.events):
                break
        took = time.perf_counter() - began
        await there.cancel(run_id)
        return took


def main() -> None:
    """Print the table, and keep it."""
    agents = "tests.agents.probes,tests.agents.asking,tests.agents.savers"
    takeovers, handovers = [], []
    with valkey() as store, start_engine(agents=agents, **OPTIONS) as alone:
        shared = OPTIONS | {"STORE": store.url}
        with start_engine(agents=agents, **shared) as one, start_engine(agents=agents, **shared) as other:
            found = asyncio.run(measure(alone, one, other))
            took = asyncio.run(lost(one, other))
        for _ in range(ROUNDS):
            with start_engine(agents=agents, **shared) as one, start_engine(agents=agents, **shared) as other:
                takeovers.append(asyncio.run(gone_on(one, other, one.kill)))
            with start_engine(agents=agents, **shared) as one, start_engine(agents=agents, **shared) as other:
                handovers.append(asyncio.run(gone_on(one, other, one.process.terminate)))
    table = {
        name: {
            "memory": round(statistics.median(memory for memory, _ in pairs), 2),
            "Valkey": round(statistics.median(shared for _, shared in pairs), 2),
            "ratio": round(statistics.median(shared / memory for memory, shared in pairs), 3),
        }
        for name, pairs in found.items()
    }
    table["an engine is killed: its runs' end is known after, s"] = {"Valkey": round(took, 2)}
    table["an engine is killed: its run goes on after, s"] = {"Valkey": round(statistics.median(takeovers), 2)}
    table["an engine is told to stop: its run goes on after, s"] = {"Valkey": round(statistics.median(handovers), 2)}
    RESULTS.write_text(json.dumps(table, indent=2) + "\n")
    for name, figures in table.items():
        sys.stdout.write(f"{name:60} {figures}\n")


if __name__ == "__main__":
    main()
