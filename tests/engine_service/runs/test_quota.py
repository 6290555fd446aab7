"""How often, and how many."""

import pytest

from engine_service.runs.quota import Quota
from engine_service.runs.refusal import Code, Refusal
from engine_service.stores.memory import MemoryJournals, MemoryStore


async def test_so_often_and_no_more() -> None:
    """A user does a thing so often, and hears when it is time again; another thing, and another user, are apart."""
    quota = Quota(MemoryStore(MemoryJournals(1, 1, 1), {"runs": 2, "resumes": 1}), 1)
    await quota.take("runs", "alice")
    await quota.take("runs", "alice")
    with pytest.raises(Refusal) as raised:
        await quota.take("runs", "alice")
    assert raised.value.code is Code.RESOURCE_EXHAUSTED
    info, retry = raised.value.details
    assert info.reason == "TOO_MANY_RUNS_PER_MINUTE"  # type: ignore[attr-defined]
    assert 0 < retry.retry_delay.ToSeconds() <= 30  # type: ignore[attr-defined]
    await quota.take("resumes", "alice")
    await quota.take("runs", "bob")
