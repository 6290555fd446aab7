"""Measures real frameworks' agents in Runwire and in FastAPI, in turn, and says which figures were reached."""

import asyncio
import itertools
import json
import math
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.measures import machine
from benchmarks.real_agents import memory
from benchmarks.real_agents.servers import ASKED, ONE, OURS, PARSE, SERVERS, WORD, Server, model_server

FRAMEWORKS = ("pydantic", "langgraph")
RESULTS = Path(__file__).parent
PAUSE = 1.0
"""Seconds between two measurements: processes that wait for the next burst need a moment to be there."""
WORDS, EVENT, RATE = "first words, one at a time [ms]", "first event of 50 at once [ms]", "runs per second, 20 at once"
GAP, RUN, WAITING = (
    "largest gap beside a busy neighbour [ms]",
    "memory of a run [MB]",
    "memory of a waiting process [MB]",
)

Figures = dict[str, float]
Taken = dict[str, dict[str, list[float]]]


async def one_at_a_time(server: Server) -> Figures:
    """Do some runs, one after the other."""
    words: list[float] = []
    for _ in range(10):
        words.append((await server.run())[1])
        await asyncio.sleep(0.1)
    return {WORDS: statistics.median(words)}


async def twenty_at_once(server: Server) -> Figures:
    """Do runs in twenty lanes."""
    begun, times, lanes = time.perf_counter(), 4, 20

    async def lane() -> None:
        for _ in range(times):
            await server.run()

    await asyncio.gather(*(lane() for _ in range(lanes)))
    return {RATE: times * lanes / (time.perf_counter() - begun)}


async def burst(server: Server) -> Figures:
    """Let fifty come at once."""
    runs = await asyncio.gather(*(server.run() for _ in range(50)))
    return {EVENT: statistics.median(first for first, _ in runs)}


async def beside(server: Server) -> Figures:
    """Look at a stream of twenty words a second, beside an agent that parses for two seconds."""
    ticking = await server.open("ticking", ASKED, WORD)
    arrivals: list[float] = []
    busy = None
    for number in range(1, 55):
        await ticking.wait_for(number)
        arrivals.append(time.perf_counter())
        if number == 3:
            busy = await server.open("agent", PARSE, WORD)
    for each in (ticking, busy):
        if each:
            each.close()
    return {GAP: 1000 * max(later - earlier for earlier, later in itertools.pairwise(arrivals))}


def private(server: Server) -> Figures:
    """Return what runs' processes took, and what those have that wait."""
    if server.engine is None or server.told is None:
        return {}
    told = [[float(each) for each in path.read_text().split()] for path in server.told.iterdir()]
    if not told:
        return {}
    zygote = next(each for each in server.engine.children() if each.children())
    waiting = [memory.private(child.pid) / 1e6 for child in zygote.children()]
    took, faults, seconds = (statistics.median(column) for column in zip(*told, strict=True))
    return {
        RUN: took / 1e6, WAITING: statistics.median(waiting), "page faults of a run": faults,
        "processor time of a run's process [ms]": seconds * 1000,
    }  # fmt: skip


async def measure(framework: str, taken: Taken) -> None:
    """Take each measure of each server in turn: A B C, A B C. All run all the time, and idle in between."""

    def note(name: str, figures: Figures) -> None:
        for figure, value in figures.items():
            taken[f"{framework}: {figure}"][name].append(value)

    measures: list[tuple[Callable[[Server], Coroutine[Any, Any, Figures]], int]] = [
        (one_at_a_time, 5), (twenty_at_once, 3), (burst, 5), (beside, 3),
    ]  # fmt: skip
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serve(framework)) for name, serve in SERVERS.items()}
        for server in servers.values():
            for _ in range(3):
                await server.run()
            await burst(server)
        for take, rounds in measures:
            print(f"{framework}: {take.__name__.replace('_', ' ')} …", file=sys.stderr, flush=True)
            for _ in range(rounds):
                for name, server in servers.items():
                    await asyncio.sleep(PAUSE)
                    note(name, await take(server))
            if take is one_at_a_time:
                note(OURS, private(servers[OURS]))


def judge(taken: Taken) -> list[str]:
    """Say of each figure that was promised whether it was reached. The bar is never moved."""
    is_newer = sys.version_info >= (3, 12)
    ratios = [(WORDS, "at most", 2.5), (RATE, "at least", 0.8), (EVENT, "at most", 3.5)]
    figures = [(GAP, 100.0), (RUN, 13.0 if is_newer else 18.0), *([(WAITING, 1.3)] if is_newer else [])]
    lines: list[str] = []
    for framework in FRAMEWORKS:
        for figure, which, bar in ratios:
            by = taken.get(f"{framework}: {figure}", {})
            ratio = statistics.median(by[OURS]) / statistics.median(by[ONE]) if by else math.nan
            reached = ratio >= bar if which == "at least" else ratio <= bar
            lines.append(f"{_mark(reached)} {framework}: {figure}: {ratio:.2f} x FastAPI's ({which} {bar:g})")
        for figure, bar in figures:
            by = taken.get(f"{framework}: {figure}", {})
            value = statistics.median(by[OURS]) if by else math.nan
            lines.append(f"{_mark(value <= bar)} {framework}: {figure}: {value:.2f} (at most {bar:g})")
    return lines


def _mark(reached: bool) -> str:  # noqa: FBT001 - it is what it says
    return "reached" if reached else "MISSED "


def _print(taken: Taken) -> None:
    for figure, by in taken.items():
        print(figure, flush=True)
        for name, values in by.items():
            ratio = f"{statistics.median(values) / statistics.median(by[ONE]):.2f} x" if ONE in by else ""
            print(f"  {name:22} {statistics.median(values):8.1f}  ({min(values):.1f} to {max(values):.1f})  {ratio}")


async def main() -> None:
    """Measure, and write it down; if frameworks are named, those are measured and only shown."""
    taken: Taken = defaultdict(lambda: defaultdict(list))
    with model_server():
        for framework in sys.argv[1:] or FRAMEWORKS:
            await measure(framework, taken)
            _print({figure: by for figure, by in taken.items() if figure.startswith(framework)})
    if sys.argv[1:]:
        return
    verdicts = judge(taken)
    print("\n" + "\n".join(verdicts))
    document = {"machine": machine(), "python": platform.python_version(), "taken": taken, "verdicts": verdicts}
    version = ".".join(platform.python_version_tuple()[:2])
    (RESULTS / f"results-{version}.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
