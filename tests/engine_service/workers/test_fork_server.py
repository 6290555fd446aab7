"""A zygote, as the engine sees it."""

import asyncio
import os
import select
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from engine_service.wire import FORK, RegistryError, Terms, Work
from engine_service.workers import Unwatched
from engine_service.workers.demand import LATELY, LEAST, Demand
from engine_service.workers.fork_server import ForkServer
from tests.support.services import is_gone, until
from tests.support.times import PATIENCE

MIB = 1024 * 1024


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def terms(*modules: str) -> Terms:
    return Terms(modules, MIB, 512 * MIB, 60.0, 60.0)


@asynccontextmanager
async def fork_server(*modules: str) -> AsyncGenerator[ForkServer]:
    made = ForkServer(terms(*modules), PATIENCE, None, Demand(16), Unwatched())
    try:
        yield made
    finally:
        await made.shut_down()


async def test_the_last_words_of_a_zygote() -> None:
    """Why the agents cannot be had is heard, also by an engine that was busy until the zygote was gone."""
    async with fork_server("tests.agents.raises") as made:
        made._zygote.wait(PATIENCE)  # this holds the loop
        with pytest.raises(RegistryError, match=r"tests\.agents\.raises.*cannot be imported"):
            await made.wait_ready()


async def test_how_children_ended_before_their_zygote() -> None:
    """How each process ended is known, also when the zygote that said so has died since, and nobody had listened."""
    async with fork_server("engine_service.agents.triage") as made:
        await made.wait_ready()
        workers = [await made._fork(b"fork") for _ in range(3)]
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
        zygote, patience = psutil.Process(made._zygote.pid), time.monotonic() + PATIENCE
        # It has reaped them, and waits for what comes next: it has said so.
        while any(psutil.pid_exists(worker.pid) for worker in workers) or zygote.status() != psutil.STATUS_SLEEPING:
            assert time.monotonic() < patience
        os.kill(made._zygote.pid, signal.SIGKILL)
        made._zygote.wait(PATIENCE)
        assert [await worker.close() for worker in workers] == ["killed by SIGKILL"] * 3


async def test_descriptors_run_out_at_a_bad_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zygote that cannot be watched is not left behind."""

    def none_left(pid: int) -> int:
        raise OSError(f"no descriptor for {pid}")

    before = descriptors()
    monkeypatch.setattr("os.pidfd_open", none_left)
    with pytest.raises(OSError, match="no descriptor for") as raised:
        ForkServer(terms("engine_service.agents.triage"), PATIENCE, None, Demand(16), Unwatched())
    monkeypatch.undo()
    pid = int(str(raised.value).rpartition(" ")[2])
    assert is_gone(pid)
    assert descriptors() == before


async def test_a_signal_at_the_very_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes while a zygote ends is written into no file of an author's."""
    (tmp_path / "at_the_end.py").write_text(
        "import atexit, os, signal, subprocess, sys\n"
        "from engine_service import Agent\n"
        "helper = subprocess.Popen(['sleep', '60'])\n"
        "def end():\n"
        "    files = [open(f'{os.path.dirname(__file__)}/{n}', 'wb', buffering=0) for n in range(4)]\n"
        "    helper.terminate(); helper.wait()\n"
        "    for file in files: file.write(b'mine')\n"
        "if 'zygote' in ' '.join(sys.argv): atexit.register(end)\n"
        "class Last(Agent):\n"
        "    async def run(self, context, input): return input\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}")
    async with fork_server("at_the_end") as made:
        await made.wait_ready()
    await asyncio.to_thread(made._zygote.wait, PATIENCE)
    assert [(tmp_path / str(number)).read_bytes() for number in range(4)] == [b"mine"] * 4


async def test_an_engine_that_stood_still() -> None:
    """A zygote that has answered is not killed, though its time is over before the answer is heard.

    So it is after a pause of the engine's: what it waits for is looked at after its timers.
    """
    async with fork_server("engine_service.agents.triage") as made:
        await made.wait_ready()
        forking = asyncio.create_task(made._fork(FORK))
        await asyncio.sleep(0)
        assert select.select([made._control], [], [], PATIENCE)[0], "it has answered"
        made._give_up()
        worker = await forking
        assert made._zygote.poll() is None
        worker.kill()
        await worker.close()


async def test_as_many_wait_as_were_needed() -> None:
    """After a burst as many children wait as it needed, up to the bound; when it is quiet again, few."""
    now = 1000.0
    made = ForkServer(terms("engine_service.agents.triage"), PATIENCE, None, Demand(10, lambda: now), Unwatched())
    try:
        await made.wait_ready()
        await made.begin()
        await until(lambda: len(made._waiting[FORK]) == LEAST)
        workers = [await made.start(Work(str(number), "alice", "triage")) for number in range(30)]
        await until(lambda: len(made._waiting[FORK]) == 10)
        for worker in workers:
            worker.kill()
            await worker.close()
        now += 2 * LATELY
        made._shrink()
        assert len(made._waiting[FORK]) == LEAST
    finally:
        await made.shut_down()
