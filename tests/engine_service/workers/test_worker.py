"""One run's process, as the engine sees it."""

from pathlib import Path

from engine_service.workers.worker import ProcessWorker


async def test_one_that_was_never_handed_over() -> None:
    """Discarding it closes both ends of everything."""

    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    ProcessWorker().discard()  # whatever the loop opens the first time is open now
    before = descriptors()
    for _ in range(10):
        ProcessWorker().discard()
    assert descriptors() == before
