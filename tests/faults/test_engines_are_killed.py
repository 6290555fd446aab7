"""Three engines, two gateways, one store: whatever is killed, every run ends once, and nobody sees another's.

A third of the runs have saved what they go on from: these complete, unless an engine was killed under them four times
before they could save once more. A kill every five seconds, which is what a lease lasts, does that to one in hundreds.
"""

import asyncio
import os
import random
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from engine_service.stores.valkey.takeover import ATTEMPTS
from tests.support.lasting import Lasting
from tests.support.services import Service, until
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.times import UNIT
from tests.support.valkey import valkey

pytestmark = [pytest.mark.measures, pytest.mark.force]

RUNS = int(os.environ.get("KILL_RUNS", "60"))
KILLS = int(os.environ.get("KILLS", "4"))
AGENTS = "tests.agents.probes,tests.agents.savers"
TIMES, EVERY = 60, 3
"""Numbers that a run says, and after how many it saves, if it does."""
PAUSE = 5.0
"""Seconds between two kills."""
LATE = 8 * UNIT
"""Seconds after a kill until the end of its runs is known: a lease of five, and three more."""


class Fleet:
    """Services that are killed, and start again where they were."""

    def __init__(self, stack: ExitStack, store: str) -> None:
        self._stack = stack
        self._store = store
        self.engines = [self.engine() for _ in range(3)]
        self.addresses = [service.address for service in self.engines]
        self.gateways = [self.gateway() for _ in range(2)]
        self.doors = [service.address for service in self.gateways]
        self.killed_at = 0.0
        self._killed: list[Service] = []

    def engine(self, address: str = "127.0.0.1:0") -> Service:
        options = {"MAX_RUNS": "1000", "LISTEN": address, "STORE": self._store, "agents": AGENTS}
        return self._stack.enter_context(start_engine(**options))

    def gateway(self, address: str = "127.0.0.1:0") -> Service:
        return self._stack.enter_context(start_gateway(",".join(self.addresses), LISTEN=address))

    def kill_engine(self) -> None:
        number = random.randrange(3)
        self.killed_at = time.monotonic()
        self.engines[number].kill()
        self._killed.append(self.engines[number])
        self.engines[number] = self.engine(self.addresses[number])

    @property
    def given_up(self) -> dict[str, int]:
        """The runs that no engine went on with any more, by how often one had."""
        records = [record for engine in (*self._killed, *self.engines) for record in engine.records]
        return {each["run_id"]: each["attempts"] for each in records if each.get("event") == "run given up"}

    def kill_gateway(self, number: int) -> None:
        self.gateways[number].kill()
        self.gateways[number] = self.gateway(self.doors[number])


@pytest.mark.timeout(300 + KILLS * 20)
async def test_engines_and_gateways_are_killed() -> None:
    """A random engine is killed every five seconds, and each gateway once, under runs that take longer than that."""
    asyncio.get_running_loop().set_debug(False)
    with valkey() as store, ExitStack() as stack:
        fleet = Fleet(stack, store.url)
        texts: dict[Lasting, list[str]] = {}
        late = dict[str, float]()
        agents = dict[Lasting, str]()

        async def keep_running(number: int) -> None:
            """Have one run after the other, until nothing is killed any more."""
            while not over.is_set():
                client = Lasting(fleet.doors[number % 2], f"user-{number}")
                agent = "saver" if number % 3 == 0 else "counter"
                agents[client] = agent
                texts[client] = await client.run(agent, times=TIMES, pause=0.1, every=EVERY)
                if client.ending == "agentFailed":
                    late[client.run_id] = time.monotonic() - fleet.killed_at

        over = asyncio.Event()
        running = [asyncio.create_task(keep_running(number)) for number in range(RUNS)]
        for kill in range(KILLS):
            await asyncio.sleep(PAUSE)
            await asyncio.to_thread(fleet.kill_engine)
            if kill < 2:
                await asyncio.to_thread(fleet.kill_gateway, kill)
        over.set()
        await asyncio.gather(*running)
        await until(lambda: not any(engine.process.poll() for engine in fleet.engines))
    endings = Counter((agents[client], client.reason or client.ending) for client in texts)
    latest, recoveries = max(late.values()), sum(client.recoveries for client in texts)
    print(
        f"{len(texts)} runs, {KILLS} engines killed: {dict(endings)}; {recoveries} times one went on elsewhere; ",
        end="",
    )
    print(f"the latest end {latest:.1f} s after a kill")
    lost, done = "FAILURE_REASON_ENGINE_LOST", "agentCompleted"
    saved = [client for client in texts if agents[client] == "saver" and client.reason == lost]
    given_up = [fleet.given_up.get(client.run_id, 0) for client in saved if len(client.seqs) > EVERY + 2]
    print(f"{len(given_up)} had saved, and were lost after {given_up} more attempts")
    assert all(attempts == ATTEMPTS for attempts in given_up), "one had saved, and was given up"
    assert len(given_up) < len(texts) / 100
    assert set(endings) <= {("counter", lost), ("counter", done), ("saver", done), ("saver", lost)}
    assert recoveries
    assert latest < LATE
    for client in texts:
        assert client.seqs == list(range(1, len(client.seqs) + 1))
        numbers = range(len(client.valid) if client.ending == "agentFailed" else TIMES)
        assert client.valid == [f"{client.run_id} {number}" for number in numbers]
