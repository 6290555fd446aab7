"""A run as a task of the engine's own loop."""

import asyncio

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
