"""Many runs that wait for their users cost nothing but memory, and each gets its answer."""

import asyncio
import statistics
import time
from typing import Any

import psutil
import pytest
from google.protobuf.struct_pb2 import Struct
from runwire.v1.engine_pb2 import AnswerRequest
from runwire.v1.events_pb2 import INPUT_OUTCOME_ACCEPTED, Event

from tests.support.clients import Caller, caller, kind, terminal
from tests.support.services import Service, engine

pytestmark = pytest.mark.measures

AGENTS = "tests.agents.asking"


class Waiting:
    """A run that asks one question."""

    def __init__(self, who: Caller) -> None:
        self._who = who
        self.call = who.call("asker")
        self.events: list[Event] = []
        self.run_id = ""

    async def read(self, until: str) -> None:
        """Read up to an event of a kind."""
        while not any(kind(event) == until for event in self.events):
            response = await self.call.read()
            self.run_id = response.run_id
            self.events += response.events

    async def answer(self, number: int) -> None:
        """Answer, and wait until the agent says that it has heard."""
        asked = next(event.input_requested for event in self.events if kind(event) == "input_requested")
        request = AnswerRequest(run_id=self.run_id, request_id=asked.request_id, outcome=INPUT_OUTCOME_ACCEPTED)
        request.content["number"] = number
        await self._who.stub.Answer(request, metadata=self._who.metadata)
        await self.read("input_answered")

    async def cancel(self) -> None:
        """Cancel, and wait until the run says so."""
        await self._who.cancel(self.run_id)
        await self.read("agent_cancelled")


def spent(service: Service) -> float:
    """Return the seconds of processor that the engine and all below it have taken."""
    one = psutil.Process(service.pid)
    times = [each.cpu_times() for each in (one, *one.children(recursive=True))]
    return sum(each.user + each.system for each in times)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("isolation", "many"), [pytest.param("task", 1000, marks=pytest.mark.force), ("process", 300)])
async def test_all_are_answered(isolation: str, many: int) -> None:
    """All wait at once, for nothing, and then each has the answer that was meant for it."""
    limits = {"MAX_RUNS": str(many), "MAX_RUNS_PER_USER": str(many), "HEARTBEAT": "60"}
    with engine(agents=AGENTS, ISOLATION=isolation, **limits) as service:
        async with caller(service.address) as alice:
            waiting = [Waiting(alice) for _ in range(many)]
            await asyncio.gather(*(each.read("input_requested") for each in waiting))
            before, begun = spent(service), time.monotonic()
            await asyncio.sleep(3)
            assert (spent(service) - before) / (time.monotonic() - begun) < 0.05
            await asyncio.gather(*(each.answer(number) for number, each in enumerate(waiting)))
            await asyncio.gather(*(each.read("agent_completed") for each in waiting))
            for number, each in enumerate(waiting):
                assert terminal(each.events).agent_completed.data == replied(number)


def replied(number: int) -> Struct:
    """Return what an agent returns that was answered so."""
    data = Struct()
    data.update({"0": {"outcome": "accepted", "content": {"number": number}}})
    return data


@pytest.mark.parametrize("isolation", ["task", "process"])
async def test_an_answers_way(isolation: str) -> None:
    """From an answer to the agent that goes on it is at most twice as long as from a cancel to the run's end."""
    with engine(agents=AGENTS, ISOLATION=isolation, MAX_RUNS_PER_USER="100") as service:
        async with caller(service.address) as alice:
            ways: dict[str, list[float]] = {"answer": [], "cancel": []}

            async def way(name: str, go: Any) -> None:
                begun = time.perf_counter()
                await go
                ways[name].append(time.perf_counter() - begun)

            for _ in range(30):
                for name in ways:
                    one = Waiting(alice)
                    await one.read("input_requested")
                    await way(name, one.answer(1) if name == "answer" else one.cancel())
                    one.call.cancel()
    answer, cancel = (statistics.median(ways[name]) for name in ("answer", "cancel"))
    print(f"{isolation}: an answer takes {1000 * answer:.2f} ms, a cancel {1000 * cancel:.2f}: {answer / cancel:.2f} x")
    assert answer <= 2 * cancel
