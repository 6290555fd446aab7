"""A run as a task of the engine's own loop."""

import asyncio
import threading

import pytest

from engine_service.workers.task import Pipe
from tests.support.clients import caller, terminal
from tests.support.services import engine as start_engine


async def test_what_libraries_log_is_told_as_the_runs() -> None:
    """Each line that a library logs inside an agent's task has the run's id, also where two are at it at once."""
    with start_engine(agents="tests.agents.chatty") as service:
        async with caller(service.address) as alice:
            runs = await asyncio.gather(*(alice.run("chatty", f"call-{number}") for number in range(4)))
            for events in runs:
                terminal(events)
        lines = {
            record["event"].rpartition(" ")[2]: record["run_id"]
            for record in service.records
            if str(record.get("event")).startswith("HTTP Request")
        }
        started = [record["run_id"] for record in service.records if record.get("event") == "run started"]
        assert set(lines) == {f"call-{number}" for number in range(4)}
        assert set(lines.values()) == set(started)


async def test_a_thread_whose_frame_was_taken_early() -> None:
    """A frame that a thread wrote, and that was read before the loop heard of it, is no end of the pipe."""
    pipe = Pipe()
    thread = threading.Thread(target=pipe.write, args=(b"early",))
    thread.start()
    thread.join()  # the loop hears of it later
    assert await pipe.read() == b"early"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await pipe.read()  # in the same breath: it waits before the loop hears
    pipe.write(b"later")
    assert await pipe.read() == b"later"
    pipe.close()
    assert await pipe.read() == b""
