"""The Python client, while connections break and engines come and go: each run tells every event of it, once."""

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest

from runwire.client import AgentCompleted, AgentMessage, AgentRecovered, Client, Event, PlainClient
from tests.support.lasting import Lasting
from tests.support.proxy import FAULTS, Proxy, proxy
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.services import until
from tests.support.valkey import valkey

pytestmark = [pytest.mark.measures, pytest.mark.packages]

RUNS = int(os.environ.get("CUT_RUNS", "20"))
RUNS_PER_CLIENT = 10
TIMES, EVERY = 60, 3
"""Numbers that a run says, and after how many it saves."""
PAUSE = 0.05 + RUNS / 2000
SILENCE = 1.0 + RUNS / 75
"""Seconds after which a connection that stalls is taken for lost."""


class Told:
    """What a run told."""

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.end: Event | None = None
        self.recoveries = 0
        self._said: list[tuple[int, str]] = []

    @property
    def said(self) -> list[str]:
        return [text for _, text in self._said]

    def take(self, event: Event) -> None:
        assert self.end is None
        self.seqs.append(event.seq)
        match event:
            case AgentMessage(delta=delta):
                self._said.append((event.seq, delta))
            case AgentRecovered(checkpoint_seq=saved_at):
                self.recoveries += 1
                self._said = [(seq, text) for seq, text in self._said if seq <= saved_at]
            case _ if event.is_end:
                self.end = event
            case _:
                pass

    def check(self) -> None:
        assert self.seqs == list(range(1, len(self.seqs) + 1))
        assert isinstance(self.end, AgentCompleted)
        assert self.said == [f"{number}" for number in range(TIMES)]


def options(**others: Any) -> dict[str, Any]:
    return {"resume_window": 60, "parameters": {"times": TIMES, "every": EVERY, "pause": PAUSE, "text": ""}, **others}


async def follow(client: Client, told: Told) -> None:
    async for event in client.run("saver", **options()):
        told.take(event)


def follow_plainly(engines: str, told: Told) -> None:
    with PlainClient(engines, token="dev:plain", silence=SILENCE) as client:
        for event in client.run("saver", **options()):
            told.take(event)


@pytest.mark.timeout(600)
async def test_whatever_breaks() -> None:
    """Connections are cut all the time, one engine is killed, the other stops, and so does a gateway: 1, 2 … n."""
    asyncio.get_running_loop().set_debug(False)
    with valkey() as store, ExitStack() as services:

        def engine(address: str = "127.0.0.1:0") -> Any:
            settings = {"STORE": store.url, "LISTEN": address, "MAX_RUNS": "1000"}
            return services.enter_context(start_engine(agents="tests.agents.savers", **settings))

        engines = [engine(), engine()]
        addresses = [each.address for each in engines]
        front = services.enter_context(start_gateway(",".join(addresses)))
        door = front.address
        async with AsyncExitStack() as stack:
            networks = [await stack.enter_async_context(proxy(address)) for address in addresses]
            behind = ",".join(network.address for network in networks)
            told = [Told() for _ in range(RUNS)]
            running: list[asyncio.Future[Any]] = []
            for number in range(0, RUNS, RUNS_PER_CLIENT):
                client = Client(behind, token=f"dev:user-{number}", silence=SILENCE)
                await stack.enter_async_context(client)
                running += [asyncio.ensure_future(follow(client, each)) for each in told[number:][:RUNS_PER_CLIENT]]
            told.append(plainly := Told())
            running.append(asyncio.ensure_future(asyncio.to_thread(follow_plainly, behind, plainly)))
            browsers = [Lasting(door, f"browser-{number}") for number in range(max(2, RUNS // 20))]
            running += [
                asyncio.ensure_future(each.run("saver", times=TIMES, every=EVERY, pause=PAUSE)) for each in browsers
            ]
            seen = [each.seqs for each in told] + [each.seqs for each in browsers]
            await until(lambda: all(len(seqs) > EVERY + 2 for seqs in seen))
            cutting = asyncio.create_task(_cut(networks, lambda: all(each.done() for each in running)))
            engines[0].kill()
            front.kill()
            heir = engine(addresses[0])
            services.enter_context(start_gateway(",".join(addresses), LISTEN=door))
            await asyncio.to_thread(lambda: heir.address)  # or there would be nobody to hand over to
            await asyncio.to_thread(engines[1].stop)
            engine(addresses[1])
            await asyncio.gather(*running)
            cuts = await cutting
    recoveries = sum(each.recoveries for each in told)
    print(f"{len(told)} runs, cut {cuts} times; {recoveries} times one went on elsewhere")
    assert cuts >= 10
    assert recoveries
    for each in told:
        each.check()
    for browser in browsers:
        assert browser.seqs == list(range(1, len(browser.seqs) + 1))
        assert (browser.ending, len(browser.valid)) == ("agentCompleted", TIMES)


async def _cut(networks: list[Proxy], is_over: Callable[[], bool]) -> int:
    """Break connections, one network after the other, until all is over."""
    cuts = 0
    while not is_over():
        await asyncio.sleep(random.uniform(0.1, 0.4))
        network = random.choice(networks)
        for link in random.sample(sorted(network.links, key=id), len(network.links) // 2):
            cuts += 1
            link.fail(random.choice(FAULTS))
    return cuts
