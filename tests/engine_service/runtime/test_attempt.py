"""What an attempt saves, and what the next one knows."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_service import Agent, RunContext, testing
from engine_service.runtime.agent import Shared
from engine_service.runtime.attempt import Attempt
from engine_service.wire import FIRST, SAVED
from tests.agents.savers import BelowWrong, Saver, Wrong
from tests.support.clients import kind

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Keys(Agent):
    """Says its keys."""

    async def run(self, context: RunContext, input: str) -> str:
        keys = [context.idempotency_key("pay", amount=amount) for amount in (1, 2, 1)]
        keys.append(context.idempotency_key(pay, amount=1))
        if context.restored is None:
            await context.checkpoint({})
        keys.append(context.idempotency_key("pay", amount=1))
        return " ".join(keys)


def pay(amount: int) -> None: ...


async def test_where_there_is_no_other_engine() -> None:
    """An agent that saves goes on; what it saved is what its tests can see."""
    ran = await testing.run(Saver, parameters={"times": 3})
    assert ran.saved == [{"next": 1}, {"next": 2}, {"next": 3}]
    assert ran.kinds[-1] == "agent_completed"


async def test_what_was_saved_is_there_again() -> None:
    """An agent that was restored goes on from there, and says that it is another attempt."""
    ran = await testing.run(Saver, parameters={"times": 3}, restored={"next": 2})
    assert ran.kinds == ["agent_recovered", "agent_message", "agent_completed"]
    assert ran.events[0].agent_recovered.attempt == 2
    assert [event.agent_message.delta[-1] for event in ran.events if kind(event) == "agent_message"] == ["2"]


async def test_what_cannot_be_saved() -> None:
    """What would not come back as it is, or is too large, is refused where it is saved; and so are sub-agents."""
    ran = await testing.run(Wrong, others=[BelowWrong])
    said = [event.agent_message.delta for event in ran.events if kind(event) == "agent_message"]
    assert [("come back as it is" in each) for each in said] == [True] * 4 + [False] * 2
    assert "at most 262144 bytes" in said[4]
    assert "only the agent that was asked for can save" in said[5]
    assert ran.saved == []


@given(PLAIN)
def test_whatever_is_json(state: object) -> None:
    """What JSON can hold can be saved."""
    from engine_service.runtime import attempt  # noqa: PLC0415 - looked into

    assert attempt._encoded(state)


async def test_keys() -> None:
    """A key is that of a tool, its arguments, and how often that was asked since the checkpoint."""
    one, two, again, by_name, _ = (await testing.run(Keys)).output.split()
    assert len({one, two, again, by_name}) == 4


@pytest.mark.parametrize("amount", [object(), float("nan"), 2**60])
async def test_keys_of_what_is_not_plain(amount: object) -> None:
    """What may be told otherwise in the next attempt gets no key."""
    made = object.__new__(Attempt)
    with pytest.raises(ValueError, match="only calls with plain values"):
        made.key("a", "pay", {"amount": amount})


class Silent:
    """An engine that answers nothing."""

    drained = True

    def write(self, frame: bytes) -> None: ...

    async def drain(self) -> None: ...


async def test_who_is_told_to_stop_waits_for_nothing() -> None:
    """Nobody saves for a run that is told to stop: whoever waits for that, or asks for it then, goes on."""
    shared = Shared.of(FIRST, Silent(), {}, testing.TERMS, is_alone=True)
    saving = asyncio.create_task(shared.attempt.save({}))
    await asyncio.sleep(0)
    shared.stop()
    await saving
    await shared.attempt.save({})


async def test_a_checkpoint_that_was_given_up() -> None:
    """Keys are counted from what is saved: not from what somebody has given up to wait for."""
    shared = Shared.of(FIRST, Silent(), {}, testing.TERMS, is_alone=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await shared.attempt.save({})
    before = shared.attempt.key("a", "pay", {})
    again = Shared.of(FIRST, Silent(), {}, testing.TERMS, is_alone=True)
    assert again.attempt.key("a", "pay", {}) == before
    shared.hear(SAVED, b"1")
    assert shared.attempt.key("a", "pay", {}) not in {before, again.attempt.key("a", "pay", {})}
