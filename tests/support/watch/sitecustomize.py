"""Loaded by Python itself in a service that a test starts: says how long each callback holds the service's loop."""

import asyncio.events
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

LIMIT = float(os.environ.get("HELD_LIMIT", "0.02"))
"""Seconds of the loop's thread that one callback may take. Its own time, and not the clock's: the machine is shared."""


def watch() -> None:
    """Tell on standard error of each callback that takes longer."""
    run = asyncio.events.Handle._run

    def timed(handle: Any) -> None:
        began = time.thread_time()
        what = repr(getattr(handle._callback, "__self__", handle._callback))
        run(handle)
        if (took := time.thread_time() - began) > LIMIT:
            sys.stderr.write(json.dumps({"event": "held", "ms": took * 1000, "what": what[:300]}) + "\n")

    asyncio.events.Handle._run = timed  # type: ignore[assignment, method-assign]


# In debugging asyncio tells of each server that it has, and of callbacks that are slow by the clock: see below.
logging.getLogger("asyncio").setLevel(logging.WARNING)
logging.getLogger("asyncio").addFilter(lambda record: not record.getMessage().startswith("Executing "))
if Path(sys.argv[0]).name in {"engine-service", "edge-gateway"}:
    watch()
