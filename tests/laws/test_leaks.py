"""What is left after many runs: nothing."""

import asyncio

import psutil
import pytest

from tests.support.clients import Caller, caller, said, terminal
from tests.support.services import engine as start_engine
from tests.support.services import looks_inside, until

pytestmark = pytest.mark.measures

RUNS = 2000
AT_ONCE = 8


async def one(alice: Caller, turn: int) -> None:
    """Have a run that ends in one of three ways."""
    match turn % 3:
        case 0:
            terminal(await alice.run("echo", "hi"))
        case 1:
            call = alice.call("waiter")
            await said(call)
            call.cancel()
        case _:
            terminal(await alice.run("rogue", "os_exit"))


@looks_inside
@pytest.mark.force
async def test_2000_runs_leave_nothing() -> None:
    """After 2,000 runs, a third of each ending another way, there are no more processes, descriptors or memory."""
    agents = "tests.agents.probes,tests.agents.rogues"
    with start_engine(agents=agents, MAX_SPARES="4", MAX_RUNS_PER_USER="100") as service:
        async with caller(service.address) as alice:
            engine = psutil.Process(service.pid)
            limit = asyncio.Semaphore(AT_ONCE)

            async def limited(turn: int) -> None:
                async with limit:
                    await one(alice, turn)

            def count() -> tuple[int, int]:
                return len(engine.children(recursive=True)), engine.num_fds()

            await asyncio.gather(*(limited(turn) for turn in range(300)))
            await settled(count)
            before, memory = count(), engine.memory_info().rss
            await asyncio.gather(*(limited(turn) for turn in range(RUNS)))
            await until(lambda: count() == before)
            grown = engine.memory_info().rss / memory - 1
            print(f"memory grown by {grown:.1%} over {RUNS} runs")
            assert grown < 0.1


async def settled(count: object) -> None:
    """Wait until what was left by its callers has ended."""
    seen = None
    while (now := count()) != seen:  # type: ignore[operator]
        seen = now
        await asyncio.sleep(0.2)
