"""What runs' processes have for `asyncio.wait_for`."""

import asyncio

import pytest

from engine_service.runtime.wait_for import wait_for


async def test_a_cancellation_is_never_lost() -> None:
    """Not even one that comes when what is waited for is just done."""
    waited = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(wait_for(waited, 10))
    await asyncio.sleep(0)
    waited.set_result("done")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_comes_in_time() -> None:
    """It is returned, or raised; without a limit, and with none left."""

    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    async def fail() -> str:
        raise LookupError

    done = asyncio.get_running_loop().create_future()
    done.set_result("done")
    assert [await wait_for(work(), 10), await wait_for(work(), None), await wait_for(done, 0)] == ["done"] * 3
    with pytest.raises(LookupError):
        await wait_for(fail(), 10)


@pytest.mark.parametrize("limit", [0, -1, 0.001])
async def test_what_comes_too_late(limit: float) -> None:
    """It is cancelled."""
    task = asyncio.create_task(asyncio.Event().wait())
    with pytest.raises(TimeoutError):
        await wait_for(task, limit)
    assert task.cancelled()
