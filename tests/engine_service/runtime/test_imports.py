"""What agents' modules do at their import, what of it a run gets, and what stops the boot."""

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.json_format import MessageToDict

from tests.support.clients import caller, kind, said, status, terminal
from tests.support.services import Service, looks_inside, until, zygote_of, zygotes_of
from tests.support.services import engine as start_engine
from tests.support.times import UNIT

IMPORTS = "tests.agents.imports"


async def seen(service: Service, user: str) -> dict[str, Any]:
    """Run the agent that looks at what its module made, and return what it saw."""
    async with caller(service.address, user) as somebody:
        events = await somebody.run("importing")
    terminal(events)
    [report] = [event.agent_reported.data for event in events if kind(event) == "agent_reported"]
    return MessageToDict(report)


async def test_what_modules_make_at_their_import(tmp_path: Path) -> None:
    """A pool of threads works, numbers differ, a temporary folder stays, exit functions run at the end of each run."""
    exits = tmp_path / "exits"
    os.environ["EXITS"] = str(exits)
    try:
        with start_engine(agents=IMPORTS) as service:
            found = [await seen(service, f"user{number}") for number in range(5)]
            assert {each["pool"] for each in found} == {"works"}
            assert all(each["folder"] for each in found)
            assert len({each["numpy"] for each in found}) == 5
            assert len({each["python"] for each in found}) == 5
            ended = [int(line) for line in exits.read_text().split()]
            assert {int(each["pid"]) for each in found} == set(ended)  # and not the boot's rehearsal
            assert all(each["kept"] for each in found)
            warned = service.wait_for(lambda record: "start threads" in record["event"])
            assert warned["threads"] >= 3  # of the pool's, its own, and those that numpy has
            assert service.wait_for(lambda record: "exit functions" in record["event"])["functions"] >= 1
    finally:
        del os.environ["EXITS"]


@pytest.mark.force
async def test_an_exit_function_that_never_ends() -> None:
    """It is cut short after the grace, the run is over before that, and the log says so."""
    with start_engine(agents="tests.agents.lingering") as service:
        async with caller(service.address) as alice:
            started = time.monotonic()
            call = alice.call("lingering")
            events = [event async for response in call for event in response.events]
            assert terminal(events).agent_completed.output == "done"
            assert 1.5 < time.monotonic() - started < 4 * UNIT
            service.wait_for(lambda record: "cut short" in record["event"])


@pytest.mark.force
async def test_modules_that_cannot_be_forked() -> None:
    """They stop the boot with a sentence, and not each run at its timeout."""
    with start_engine(agents="tests.agents.unforkable") as service:
        assert await asyncio.to_thread(service.wait, 40 * UNIT) == 2
        [line] = service.lines
        assert "cannot be forked: its agents need `fork = False`" in line


async def test_a_fork_that_dies_is_no_slow_exit() -> None:
    """A module whose forked processes die stops the boot, too."""
    with start_engine(agents="tests.agents.deadly") as service:
        assert await asyncio.to_thread(service.wait, 40 * UNIT) == 2
        assert "killed by SIGKILL; one of these modules cannot be forked" in service.lines[-1]


@looks_inside
async def test_a_zygote_whose_module_started_a_daemon() -> None:
    """What a module leaves running doesn't hide the zygote's death: another takes over."""
    with start_engine(agents="tests.agents.daemon") as service:
        os.kill(zygote_of(service), signal.SIGKILL)
        async with caller(service.address) as alice, asyncio.timeout(15 * UNIT):
            while await status(alice.call("with_daemon")) is not grpc.StatusCode.OK:
                pass
        for pid in psutil.pids():  # it is nobody's child any more, and ends by itself, but not soon
            with contextlib.suppress(psutil.Error):
                if psutil.Process(pid).cmdline() == ["sleep", "97"]:
                    psutil.Process(pid).kill()


async def test_an_agent_that_is_not_forked() -> None:
    """With `fork = False` its processes are started afresh, each for one run, beside others that are forked."""
    with start_engine(agents="tests.agents.apart,tests.agents.probes") as service:
        async with caller(service.address) as alice:
            pids = set[str]()
            for _ in range(2):
                events = await alice.run("apart")
                assert terminal(events).agent_completed.output == "afresh"
                pids.add(events[1].agent_message.delta)
            assert len(pids) == 2
            assert terminal(await alice.run("echo", "hi")).agent_completed.output == "hi"


async def test_an_import_that_hangs() -> None:
    """It stops the boot after a while with a line that names the module, and leaves no process."""
    with start_engine(agents="tests.agents.hangs", IMPORT_TIMEOUT="2") as service:
        await until(lambda: bool(zygotes_of(service)))
        [zygote] = zygotes_of(service)
        assert await asyncio.to_thread(service.wait) == 2
        [line] = service.lines
        assert "'tests.agents.hangs' is still not imported after 2 seconds" in line
        assert not psutil.pid_exists(zygote)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_stopping_while_an_import_hangs(number: signal.Signals) -> None:
    """Told to stop while it boots, an engine stops at once; killed, it leaves no process behind either."""
    with start_engine(agents="tests.agents.hangs") as service:
        await until(lambda: bool(zygotes_of(service)))
        [zygote] = zygotes_of(service)
        service.signal(number)
        assert await asyncio.to_thread(service.wait, 5 * UNIT) == (0 if number == signal.SIGTERM else -number)
        await until(lambda: not psutil.pid_exists(zygote), 5)


async def test_memory_that_modules_take() -> None:
    """A run may have as much as is said besides what its module has taken already, and no more."""
    with start_engine(agents="tests.agents.heavy", RUN_MEMORY="256MiB") as service:
        async with caller(service.address) as alice:
            assert terminal(await alice.run("heavy", "128")).agent_completed.output == str(828 * 1024 * 1024)
            assert kind(terminal(await alice.run("heavy", "300"))) == "agent_failed"


async def test_threads_are_not_memory() -> None:
    """200 threads that do nothing are not told as 1.6 GB."""
    with start_engine(agents=IMPORTS) as service:
        async with caller(service.address) as alice:
            assert terminal(await alice.run("threads", "200")).agent_completed.output == "done"


async def test_an_agent_that_is_not_public() -> None:
    """It is not listed and cannot be started; others delegate to it."""
    with start_engine(agents=IMPORTS) as service:
        async with caller(service.address) as alice:
            assert await status(alice.call("helper")) is grpc.StatusCode.NOT_FOUND
            assert terminal(await alice.run("boss", "it")).agent_completed.output == "helped with it"


@looks_inside
async def test_everybody_is_told_to_stop() -> None:
    """SIGTERM for every process at once, as supervisors send it, drains: runs go on to their end."""
    with start_engine(DRAIN_GRACE="10") as service:
        async with caller(service.address) as alice:
            call = alice.call("ticker", parameters={"ticks": 40})
            assert await said(call) == "0"
            [zygote] = zygotes_of(service)
            everybody = [service.pid, zygote, *(child.pid for child in psutil.Process(zygote).children(recursive=True))]
            for pid in everybody:
                os.kill(pid, signal.SIGTERM)
            events = [event async for response in call for event in response.events]
            assert kind(events[-1]) == "agent_completed"
            assert await asyncio.to_thread(service.wait) == 0


@pytest.mark.force
@looks_inside
async def test_a_zygote_that_stands_still() -> None:
    """It is noticed: those that run end in time, new runs get a process, and the engine can be stopped."""
    with start_engine() as service:
        async with caller(service.address) as alice, caller(service.address, "bob") as bob:
            ticking = alice.call("ticker", parameters={"ticks": 20})
            assert await said(ticking) == "0"
            [zygote] = zygotes_of(service)
            os.kill(zygote, signal.SIGSTOP)
            async with asyncio.timeout(20 * UNIT):
                events = [event async for response in ticking for event in response.events]
                assert kind(events[-1]) == "agent_completed"
                service.wait_for(lambda record: record["event"] == "the zygote does not answer: it is killed")
                while await status(bob.call("echo", "hi")) is not grpc.StatusCode.OK:
                    pass
        [zygote] = zygotes_of(service)
        os.kill(zygote, signal.SIGSTOP)
        service.signal(signal.SIGTERM)
        assert await asyncio.to_thread(service.wait, 15 * UNIT) == 0
        assert not psutil.pid_exists(zygote)
