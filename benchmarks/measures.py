"""What is measured. Each measurement is one number, taken of one contestant, once."""

import asyncio
import itertools
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from benchmarks.contestants.line_up import Contestant, Running, Stream

STALL = 10.0
"""Seconds that a reader doesn't read."""

Measurement = Callable[[Contestant, Running], Awaitable[float | list[float]]]
"""Returns a figure, or one for each of many that were there at once."""


@dataclass(frozen=True)
class Measure:
    """One row of the table."""

    name: str
    unit: str
    take: Measurement
    word: str = "numbers"
    rounds: int = 3
    streams: int = 1
    """How many there are at once, of those for whom that is a question."""
    afresh: bool = False
    """Whether the server is started for it: what it did before would be seen."""

    def figures(self, taken: float | list[float]) -> dict[str, float]:
        """Return what was measured by its name; of many, the median and the 99th percentile."""
        if not isinstance(taken, list):
            return {self.name: taken}
        p99 = statistics.quantiles(taken, n=100, method="inclusive")[98] if len(taken) > 1 else taken[0]
        return {f"{self.name}, median": statistics.median(taken), f"{self.name}, p99": p99}


def events_per_second(streams: int, times: int) -> Measurement:
    """Let so many streams tell so many events each, as fast as they can."""

    async def take(who: Contestant, running: Running) -> float:
        count = int(times * who.share)
        return streams * count / await _seconds(who, running, streams, count)

    return take


def cpu(streams: int, times: int) -> Measurement:
    """Return the milliseconds that a thousand events cost the server."""

    async def take(who: Contestant, running: Running) -> float:
        count = int(times * who.share)
        before = _worked(running)
        await _seconds(who, running, streams, count)
        return (_worked(running) - before) * 1000 / (streams * count / 1000)

    return take


async def _seconds(who: Contestant, running: Running, streams: int, times: int) -> float:
    """Return the seconds from the first event of all streams to the last. How a run begins is measured apart."""
    firsts = []

    async def one(stream: Stream) -> None:
        stream.start("numbers", times)
        await stream.wait_for(1)
        firsts.append(time.perf_counter())
        await stream.wait_for(times + who.more)

    await asyncio.gather(*[one(stream) for stream in [await running.open() for _ in range(streams)]])
    return time.perf_counter() - min(firsts)


async def first_event(who: Contestant, running: Running) -> float:
    """Return the milliseconds from a new connection to its first event."""
    return 1000 * await _first(who, running)


def first_events(at_once: int) -> Measurement:
    """Return the same for each of so many that come at once, and say 20 things."""

    async def take(who: Contestant, running: Running) -> list[float]:
        return [1000 * took for took in await asyncio.gather(*(_first(who, running, 20) for _ in range(at_once)))]

    return take


async def _first(who: Contestant, running: Running, times: int = 1) -> float:
    begun = time.perf_counter()
    stream = await running.open()
    stream.start("numbers", times)
    await stream.wait_for(1)
    took = time.perf_counter() - begun
    await stream.wait_for(times + who.more)
    stream.close()
    return took


async def starts_per_second(who: Contestant, running: Running) -> float:
    """Run after run, eight at a time."""
    begun, runs, lanes = time.perf_counter(), max(int(25 * who.share), 1), 8

    async def lane() -> None:
        for _ in range(runs):
            await _first(who, running)

    await asyncio.gather(*(lane() for _ in range(lanes)))
    return runs * lanes / (time.perf_counter() - begun)


def memory(streams: int) -> Measurement:
    """Return the KB that a stream costs whose agent waits."""

    async def take(_: Contestant, running: Running) -> float:
        await _settled(running)
        before = _memory(running)
        opened = [await running.open() for _ in range(streams)]
        for stream in opened:
            stream.start("wait", 0)
        await asyncio.gather(*(stream.wait_for(1) for stream in opened))
        await _settled(running)
        return (_memory(running) - before) / streams / 1024

    return take


async def gap(_: Contestant, running: Running) -> float:
    """Return the milliseconds of the largest gap in a stream of 20 events a second, beside a busy neighbour."""
    ticks, busy = await running.open(), await running.open()
    ticks.start("tick", 0)
    arrivals = []
    for number in range(1, 39):
        await ticks.wait_for(number)
        arrivals.append(time.perf_counter())
        if number == 3:
            busy.start("busy", 0)
    for stream in (ticks, busy):
        stream.close()
    await _settled(running)
    return 1000 * max(later - earlier for earlier, later in itertools.pairwise(arrivals))


async def stalled(_: Contestant, running: Running) -> float:
    """Return the MB that a server grows by while somebody who wants a million events doesn't read."""
    stream = await running.open()
    before = _memory(running)
    stream.start("numbers", 1_000_000)
    await stream.wait_for(1)
    counter = running.counter(stream)
    assert counter
    counter.transport.pause_reading()
    await asyncio.sleep(STALL)
    grown = _memory(running) - before
    stream.close()
    await _settled(running)
    return grown / 2**20


async def leaving(_: Contestant, running: Running) -> float:
    """Return the milliseconds from a socket that closes to the end of its agent's process."""
    stream = await running.open()
    before = set(running.processes())
    stream.start("wait", 0)
    await stream.wait_for(2)
    # Those that wait for the next runs are children too: the agent is the one that dies.
    alive = before | set(running.processes())
    begun = time.perf_counter()
    stream.close()
    while all(_lives(each) for each in alive):
        await asyncio.sleep(0.0005)
        assert time.perf_counter() - begun < STALL, "nothing died"
    return 1000 * (time.perf_counter() - begun)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _worked(running: Running) -> float:
    """Return the seconds of work that a server has done, its dead children's among them."""
    worked = 0.0
    for each in running.processes():
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile, and counts as its parent's child
            times = each.cpu_times()
            worked += times.user + times.system + times.children_user + times.children_system
    return worked


def _memory(running: Running) -> int:
    """Return the bytes that a server has for itself. What processes share counts once."""
    total = 0
    for each in running.processes():
        with suppress(psutil.NoSuchProcess):
            total += int(each.memory_full_info().pss)
    return total


async def _settled(running: Running) -> None:
    """Wait until a server has as many processes as before, and does nothing."""
    last = -1.0
    while (now := _worked(running) + len(running.processes())) != last:
        last = now
        await asyncio.sleep(0.3)


MEASURES = [
    *(
        Measure(f"memory of each of {many:,} that wait", "KB", memory(many), "wait", 1, streams=many, afresh=True)
        for many in (1, 10, 100, 1000)
    ),
    Measure("events per second, 10 streams", "/s", events_per_second(10, 10_000)),
    Measure("events per second, 1 stream", "/s", events_per_second(1, 20_000)),
    Measure("events per second, 50 streams", "/s", events_per_second(50, 2_000)),
    Measure("CPU for 1,000 events", "ms", cpu(10, 5_000)),
    Measure("first event, one at a time", "ms", first_event, rounds=15),
    *(
        Measure(f"first event, {many:,} at once", "ms", first_events(many), rounds=rounds, streams=many)
        for many, rounds in ((50, 3), (200, 2), (1000, 1))
    ),
    Measure("runs started and ended per second", "/s", starts_per_second),
    Measure("largest gap beside a busy neighbour", "ms", gap, word="tick", rounds=2),
]
"""What is measured of everybody who can do it."""

OURS = [
    Measure("closed socket to dead process", "ms", leaving, word="wait", rounds=9),
    Measure("memory with a stalled reader, 10 s", "MB", stalled, rounds=1),
]
"""What is measured of Runwire alone, or of whoever serves WebSockets."""


def machine() -> dict[str, object]:
    """Say what was measured on."""
    uname = os.uname()
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": uname.release,
        "arch": uname.machine,
    }
