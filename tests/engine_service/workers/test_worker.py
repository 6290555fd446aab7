"""One run's process, as the engine sees it."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from engine_service.wire import ANSWER, MAX_OPEN, MAX_QUESTION
from engine_service.workers import sooner
from engine_service.workers.worker import ProcessWorker
from tests.support.times import PATIENCE


async def test_one_that_was_never_handed_over() -> None:
    """Discarding it closes both ends of everything."""

    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    ProcessWorker().discard()  # whatever the loop opens the first time is open now
    before = descriptors()
    for _ in range(10):
        ProcessWorker().discard()
    assert descriptors() == before


@pytest.mark.parametrize(("graces", "ends"), [((0.0, 60.0), 0.0), ((60.0, 0.0), 0.0), ((60.0, 30.0, 60.0), 30.0)])
async def test_the_shortest_grace_stands(graces: tuple[float, ...], ends: float) -> None:
    """Whoever is told to stop again has no longer than before."""
    loop = asyncio.get_running_loop()
    timer = None
    for grace in graces:
        timer = sooner(timer, loop.call_later(grace, pytest.fail))
    assert timer
    assert timer.when() - loop.time() == pytest.approx(ends, abs=1)
    timer.cancel()


async def test_a_second_word_gives_no_more_time() -> None:
    """A process that is to be killed in a moment is, also when it is told to stop again, with more time."""
    child = subprocess.Popen(["sleep", "60"])
    worker = ProcessWorker()
    worker.born(child.pid, os.pidfd_open(child.pid), lambda: None)
    try:
        worker.stop(0.1)
        worker.stop(60)
        assert await asyncio.to_thread(child.wait, PATIENCE) == -signal.SIGKILL
    finally:
        worker.discard()


async def test_one_that_hears_nothing() -> None:
    """A process that asks for ever, and takes no answer, is ended before these fill the engine's memory."""
    child = subprocess.Popen(["sleep", "60"])
    worker = ProcessWorker()
    worker.born(child.pid, os.pidfd_open(child.pid), lambda: None)
    try:
        for _ in range(MAX_OPEN):
            worker.tell(ANSWER, b"x" * (MAX_QUESTION - 16))
        assert child.poll() is None
        for _ in range(MAX_OPEN):
            worker.tell(ANSWER, b"x" * (MAX_QUESTION - 16))
        assert await asyncio.to_thread(child.wait, PATIENCE) == -signal.SIGKILL
    finally:
        worker.discard()
