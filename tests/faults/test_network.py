"""What a browser sees when the network between gateway and engine is bad."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from tests.faults.test_processes import begun, rest, works
from tests.support.clients import JSON, opening, socket
from tests.support.proxy import Proxy, proxy
from tests.support.services import Service, engine, gateway, is_gone, until
from tests.support.times import UNIT

Bad = tuple[Proxy, Service]


@pytest_asyncio.fixture
async def bad() -> AsyncGenerator[Bad]:
    with engine(AGENTS="tests.agents.probes,tests.agents.dirt") as back:
        async with proxy(back.address) as network:
            with gateway(network.address) as front:
                assert front.address
                yield network, front
                await asyncio.to_thread(front.stop)  # our loop carries its connections


async def test_reset(bad: Bad) -> None:
    """4014, come back; the agent is gone, and the next run works."""
    network, front = bad
    async with socket(front.address) as connection:
        pid = int(await begun(connection, "pid"))
        network.cut()
        assert await rest(connection) == ([], 4014)
    await until(lambda: is_gone(pid))
    await works(front)


async def test_reset_in_the_middle_of_a_message(bad: Bad) -> None:
    """4014, and what came before is whole: numbers from 1 on without a gap."""
    network, front = bad
    network.fate = lambda link, _: "reset" if link.down > 300_000 else None
    async with socket(front.address) as connection:
        await connection.send(opening(JSON, "flood"))
        seen, code = await rest(connection)
    assert code == 4014
    assert [event["seq"] for event in seen] == list(range(1, len(seen) + 1))
    assert not {"agentCompleted", "agentFailed", "agentCancelled"} & seen[-1].keys()


async def test_cut(bad: Bad) -> None:
    """While there is no network: 4014 within two seconds. When it is back, within two more, runs work."""
    network, front = bad
    await works(front)
    network.is_cut = True
    network.cut()
    async with asyncio.timeout(2.5 * UNIT), socket(front.address) as connection:
        await connection.send(opening(JSON, "echo", "hi"))
        assert (await rest(connection))[1] == 4014
    network.is_cut = False
    async with asyncio.timeout(5 * UNIT):
        while True:
            async with socket(front.address) as connection:
                await connection.send(opening(JSON, "echo", "hi"))
                if (await rest(connection))[1] == 1000:
                    break


@pytest.mark.parametrize(("delay", "rate"), [(0.1, 0.0), (0.0, 100_000.0)], ids=["delayed", "throttled"])
async def test_slow(bad: Bad, delay: float, rate: float) -> None:
    """The same events, later."""
    network, front = bad
    network.delay, network.rate = delay, rate
    async with socket(front.address) as connection:
        await connection.send(opening(JSON, "echo", "x" * 100, parameters={"times": 500}))
        seen, code = await rest(connection)
    assert [event["seq"] for event in seen] == list(range(1, 503))
    assert code == 1000
