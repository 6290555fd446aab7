"""What modules do at their import, and what becomes of it in a run."""

import atexit
import os
import random
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from engine_service import Agent, RunContext

FOLDER = tempfile.TemporaryDirectory()  # noqa: SIM115, RUF100 - to be there for good
KEPT = tempfile.mkdtemp()
atexit.register(shutil.rmtree, KEPT)
POOL = ThreadPoolExecutor(2)
POOL.submit(int).result()
threading.Thread(target=threading.Event().wait, daemon=True).start()
np.random.seed(1)  # noqa: NPY002 - what many modules do


@atexit.register
def flush() -> None:
    """Send what was held back, as exporters of spans do."""
    if log := os.environ.get("EXITS"):
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")


class Importing(Agent):
    """Uses what its module made at its import."""

    async def run(self, context: RunContext, input: str) -> str:
        await context.report(
            "seen",
            {
                "pool": POOL.submit(lambda: "works").result(5),
                "folder": Path(FOLDER.name).is_dir(),
                "numpy": float(np.random.random()),  # noqa: NPY002 - the global one is meant
                "python": random.random(),
                "kept": Path(KEPT).is_dir(),
                "pid": os.getpid(),
            },
        )
        return "seen"


class Helper(Agent):
    """For other agents, and not for callers."""

    public = False

    async def run(self, context: RunContext, input: str) -> str:
        return f"helped with {input}"


class Boss(Agent):
    """Has the helper help."""

    async def run(self, context: RunContext, input: str) -> str:
        return await context.delegate("helper", input)


class Threads(Agent):
    """Has as many tools at work at once as it is told."""

    async def run(self, context: RunContext, input: str) -> str:
        gate = threading.Barrier(int(input))
        threads = [threading.Thread(target=gate.wait) for _ in range(int(input))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return "done"
