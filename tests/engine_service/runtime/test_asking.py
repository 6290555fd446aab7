"""Whether a run's time stands still, as its agent's side sees it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from runwire.v1 import events_pb2 as pb

from engine_service.runtime.agent import RunContext, Shared
from engine_service.runtime.asking import Reply
from engine_service.testing import TERMS
from engine_service.usage import Meter
from engine_service.wire import ASKED, FIRST, FrameSplitter


class Sink:
    """Takes what is said, and knows what was asked."""

    drained = True

    def __init__(self) -> None:
        self.asked: list[str] = []

    def write(self, frame: bytes) -> None:
        if frame[0] == ASKED:
            splitter = FrameSplitter(TERMS.max_event_bytes)
            splitter.cut(frame)
            self.asked.append(pb.Event.FromString(splitter.heard[0][1]).input_requested.request_id)

    async def drain(self) -> None:
        pass


class Scene:
    """One agent of a run."""

    def __init__(self) -> None:
        self.sink = Sink()
        self.shared = Shared.of(FIRST, self.sink, {}, TERMS, is_alone=True)
        self.context = RunContext(self.shared, "a", Meter())
        self.asking: list[asyncio.Task[Reply]] = []

    @property
    def stands_still(self) -> bool:
        return self.shared.clock.extension > 0

    async def ask(self, ask: Callable[..., Coroutine[Any, Any, Reply]], *about: Any) -> None:
        self.asking.append(asyncio.create_task(ask(*about)))
        await asyncio.sleep(0)

    async def ask_for_a_tool(self) -> None:
        await self.ask(self.context.questions.ask_for_a_tool, "Well?", None, None)

    def begin(self) -> str:
        return self.context.tool_calls.begin("tool", {})

    def end(self, call_id: str) -> None:
        self.context.tool_calls.end(call_id, None)

    def answer(self, number: int) -> None:
        answered = pb.InputAnswered(request_id=self.sink.asked[number], outcome=pb.INPUT_OUTCOME_ACCEPTED)
        self.shared.asking.hear(answered.SerializeToString())


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def test_a_tool_that_asks(scene: Scene) -> None:
    """While all tools that go on ask, whichever asks what, time stands still; while another goes on, it doesn't."""
    one, other = scene.begin(), scene.begin()
    await scene.ask_for_a_tool()
    assert not scene.stands_still
    await scene.ask_for_a_tool()
    assert scene.stands_still
    scene.answer(0)
    assert not scene.shared.asking.open_calls <= frozenset()
    await asyncio.gather(scene.asking[0])
    scene.end(one)
    extended = scene.shared.clock.extension
    assert extended > 0, "the one that is left asks"
    scene.answer(1)
    assert (await scene.asking[1]).is_accepted
    scene.end(other)
    assert scene.shared.clock.extension < extended


async def test_a_tool_that_is_over_asks_nothing(scene: Scene) -> None:
    """What a tool asked whose call is over is withdrawn, and no time stands still for it."""
    call = scene.begin()
    await scene.ask_for_a_tool()
    assert scene.stands_still
    scene.end(call)
    assert (await scene.asking[0]).outcome == "expired"
    assert scene.shared.clock.extension < 1


async def test_whoever_asks_outside_a_call(scene: Scene) -> None:
    """A server that asks while nothing of it is called may; no time stands still for it, and no tool hides in it."""
    await scene.ask_for_a_tool()
    assert not scene.stands_still
    await scene.ask(scene.context.questions.ask, "And you?")
    assert scene.stands_still, "an agent asks, too"
    scene.begin()
    assert scene.shared.clock.extension < 1
