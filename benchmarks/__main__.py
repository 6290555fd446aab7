"""Measures everybody in turn, and writes down what came out: a table, `results.json`, and pictures for the README."""

import asyncio
import json
import math
import statistics
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import grpc
import psutil
import structlog

from benchmarks import pictures
from benchmarks.contestants.line_up import EVERYBODY, Contestant, Running
from benchmarks.measures import MEASURES, OURS, Measure, events_per_second, machine

RESULTS = Path(__file__).with_name("results.json")
TIMEOUT = 120.0
"""Seconds that one measurement may take."""

Taken = dict[str, dict[str, list[float]]]


async def measure(everybody: list[Contestant], measures: list[Measure]) -> Taken:
    """Take each measure of each contestant in turn: A B C, A B C. All servers run all the time, and idle in between."""
    taken: Taken = defaultdict(lambda: defaultdict(list))
    for each in measures:
        if each.afresh:
            for who in everybody:
                with who.serve() as running:
                    await _warm_up(who, running)
                    await _take(each, who, running, taken)
            _print(each, taken)
    with ExitStack() as stack:
        servers = [(who, stack.enter_context(who.serve())) for who in everybody]
        for who, running in servers:
            await _warm_up(who, running)
        for each in measures:
            if not each.afresh:
                for _ in range(each.rounds):
                    for who, running in servers:
                        await _take(each, who, running, taken)
                _print(each, taken)
    return taken


async def _warm_up(who: Contestant, running: Running) -> None:
    """Let the first runs of each import, compile and fill caches."""
    await events_per_second(2, 500)(who, running)
    running.hang_up()


async def _take(each: Measure, who: Contestant, running: Running, taken: Taken) -> None:
    if each.word not in who.words or each.streams > who.most:
        return
    try:
        async with asyncio.timeout(TIMEOUT):
            figures = each.figures(await each.take(who, running))
    except (TimeoutError, OSError, AssertionError, psutil.Error, grpc.RpcError) as error:
        print(f"  {who.name}: {each.name}: {type(error).__name__} {error}", file=sys.stderr)
    else:
        for name, value in figures.items():
            taken[name][who.name].append(value)
    finally:
        running.hang_up()


def _print(each: Measure, taken: Taken) -> None:
    for figure, measured in taken.items():
        if figure.startswith(each.name):
            print(f"\n{figure} [{each.unit}]")
            _print_figure(measured)


def _print_figure(measured: dict[str, list[float]]) -> None:
    for name, values in measured.items():
        spread = f"({_number(min(values))} to {_number(max(values))})" if len(values) > 1 else ""
        print(f"  {name:32} {_number(statistics.median(values)):>10}   {spread}")
    sys.stdout.flush()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


BARS: list[tuple[str, str, str, str, float]] = [
    ("events per second, 10 streams", "Runwire, process, JSON", "FastAPI + uvicorn[standard]", "at least", 1.7),
    ("events per second, 10 streams", "Runwire, process, binary", "FastAPI + uvicorn[standard]", "at least", 4),
    ("events per second, 10 streams", "Runwire, process, JSON", "google-adk api_server", "at least", 10),
    ("events per second, 10 streams", "Runwire, process, JSON", "pydantic-ai, AG-UI", "at least", 10),
    ("events per second, 10 streams", "Runwire, process, JSON", "langgraph dev", "at least", 10),
    ("events per second, 10 streams", "Runwire, process, gRPC", "bare grpc.aio", "at least", 8),
    ("first event, one at a time", "Runwire, process, JSON", "FastAPI + uvicorn[standard]", "at most", 1),
    ("first event, 50 at once, median", "Runwire, process, JSON", "FastAPI + uvicorn[standard]", "at most", 1.5),
    ("first event, 50 at once, median", "Runwire, task, JSON", "FastAPI + uvicorn[standard]", "at most", 1),
]
FIGURES: list[tuple[str, str, str, float]] = [
    ("largest gap beside a busy neighbour", "Runwire, process, JSON", "ms", 100),
    ("memory of each of 100 that wait", "Runwire, task, JSON", "KB", 120),
    ("memory of each of 100 that wait", "Runwire, process, JSON", "KB", 3 * 1024),
    ("first event, 1,000 at once, p99", "Runwire, process, binary", "ms", 3000),
]


def judge(taken: Taken) -> list[str]:
    """Say of each figure that was promised whether it was reached. The bar is never moved."""
    lines = []
    for measure_name, ours, other, which, bar in BARS:
        values = taken.get(measure_name, {})
        if not values.get(ours) or not values.get(other):
            lines.append(f"{_mark(reached=False)} {measure_name}: {ours}, {other}: not measured")
            continue
        ratio = statistics.median(values[ours]) / statistics.median(values[other])
        reached = ratio >= bar if which == "at least" else ratio <= bar
        lines.append(f"{_mark(reached=reached)} {measure_name}: {ours} is {ratio:.2f} × {other} ({which} {bar:g} ×)")
    for measure_name, ours, unit, bar in FIGURES:
        figure = statistics.median(taken.get(measure_name, {}).get(ours) or [math.inf])
        said = f"{measure_name}: {ours}: {_number(figure)} {unit} (at most {bar:g} {unit})"
        lines.append(f"{_mark(reached=figure <= bar)} {said}")
    return lines


def _mark(*, reached: bool) -> str:
    return "reached" if reached else "MISSED "


async def main() -> None:
    """Measure, and write it down; a part, of those whose names have one of the arguments in them, is only shown."""
    structlog.configure(processors=[], logger_factory=structlog.ReturnLoggerFactory())
    chosen = sys.argv[1:]
    everybody = [who for who in EVERYBODY if not chosen or any(part in who.name for part in chosen)]
    begun = time.time()
    taken = await measure(everybody, MEASURES)
    ours = [who for who in everybody if who.name == "Runwire, process, JSON"]
    taken |= await measure(ours, OURS)
    if chosen:
        return
    verdicts = judge(taken)
    print("\n" + "\n".join(verdicts))
    minutes = round((time.time() - begun) / 60, 1)
    document = {"machine": machine(), "minutes": minutes, "taken": taken, "verdicts": verdicts}
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    pictures.draw(taken, {who.name: who.is_ours for who in EVERYBODY})


if __name__ == "__main__":
    asyncio.run(main())
