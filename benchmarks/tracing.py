"""What traces cost: an engine that sends them beside one that doesn't, in one run, twenty pairs turn by turn."""

import asyncio
import json
import random
import statistics
import sys
from pathlib import Path

import psutil
from google.protobuf.struct_pb2 import Struct

from tests.support.clients import Caller, caller, kind
from tests.support.receiver import receiver
from tests.support.services import Service, zygote_of
from tests.support.services import engine as start_engine

PAIRS = 20
RUNS = 40
MOST = 1.10
"""What was promised: processor time of a run with traces, beside one without."""
RESULTS = Path(__file__).with_name("tracing.json")
OPTIONS = {"MAX_RUNS_PER_USER": "100", "DEMO_AGENTS": "true"}
QUESTION = "My invoice is wrong"


def used(engine: Service) -> float:
    """Return the processor time of an engine, its zygote and their processes that are gone, in seconds."""
    return sum(sum(psutil.Process(pid).cpu_times()[:4]) for pid in (engine.pid, zygote_of(engine)))


async def turn(engine: Service, user: Caller) -> float:
    """Return the processor time of one run of triage, in milliseconds."""
    fast = Struct()
    fast.update({"pace": 0})
    before = used(engine)
    for _ in range(RUNS):
        events = await user.run("triage", QUESTION, parameters=fast)
        assert kind(events[-1]) == "agent_completed"
    await asyncio.sleep(1.5)  # processes are born again, and what is to be sent is sent
    return 1000 * (used(engine) - before) / RUNS


async def main() -> None:
    """Measure, and write it down."""
    pairs: list[tuple[float, float]] = []
    with receiver() as collector:
        with start_engine(**OPTIONS) as off, start_engine(OTLP_ENDPOINT=collector.url, **OPTIONS) as on:
            async with caller(off.address) as without, caller(on.address) as with_traces:
                for _ in range(2):  # both warm up
                    await turn(off, without), await turn(on, with_traces)
                for number in range(PAIRS):
                    sides = [(off, without), (on, with_traces)]
                    found = {}
                    for engine, user in sides if number % 2 else reversed(sides):
                        found[engine] = await turn(engine, user)
                    pairs.append((found[off], found[on]))
                    sys.stdout.write(f"  {found[off]:6.2f} ms  {found[on]:6.2f} ms\n")
        spans = len(collector.spans)
    ratios = sorted(on / off for off, on in pairs)
    resampled = sorted(statistics.median(random.choices(ratios, k=PAIRS)) for _ in range(2000))  # noqa: S311
    result = {
        "off_ms": round(statistics.median(off for off, _ in pairs), 2),
        "on_ms": round(statistics.median(on for _, on in pairs), 2),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_95": [round(resampled[50], 3), round(resampled[1949], 3)],
        "ratios": [round(ratio, 3) for ratio in (ratios[0], *statistics.quantiles(ratios), ratios[-1])],
        "spans_a_run": round(spans / (RUNS * (PAIRS + 2)), 1),
        "promised": MOST,
    }
    sys.stdout.write(f"{json.dumps(result, indent=2)}\n")
    RESULTS.write_text(f"{json.dumps(result, indent=2)}\n")


if __name__ == "__main__":
    asyncio.run(main())
