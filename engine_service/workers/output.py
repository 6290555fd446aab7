"""What a process prints, on its way to the engine's log."""

import asyncio
import os
from typing import Any

CHUNK = 64 * 1024
PACE = 0.05
"""Seconds between two reads: what comes meanwhile is one record, and not one for each line."""
MAX_OUTPUT = 256 * 1024
"""Bytes of one process's output that are logged. What is more is read, so that nobody waits, and dropped."""
LAST_READS = 4


class Output:
    """The reading end of a process's standard output and error."""

    def __init__(self, log: Any) -> None:
        self.log = log
        """Where it goes. Changed when a waiting process gets its run."""
        self._loop = asyncio.get_running_loop()
        self._reader, self.writer = os.pipe()
        self._child_ends_closed = False
        os.set_blocking(self._reader, False)
        self._left = MAX_OUTPUT
        self._open = True
        self._timer: asyncio.TimerHandle | None = None
        self._listen()

    def close_child_ends(self) -> None:
        """Close our copy of the writing end: from now on only the process has it."""
        if not self._child_ends_closed:
            self._child_ends_closed = True
            os.close(self.writer)

    def close(self) -> None:
        """Log what is still there, and let go."""
        self.close_child_ends()
        for _ in range(LAST_READS):  # and not until it ends: who knows who else holds it
            if not (self._open and self._take()):
                break
        if self._open:
            self._end()

    def _listen(self) -> None:
        if self._open:
            self._loop.add_reader(self._reader, self._read)

    def _read(self) -> None:
        self._loop.remove_reader(self._reader)
        if self._take():
            self._timer = self._loop.call_later(PACE if self._left > 0 else 0, self._listen)

    def _take(self) -> bool:
        try:
            data = os.read(self._reader, CHUNK)
        except BlockingIOError:
            return True
        if not data:
            self._end()
            return False
        if self._left > 0:
            if text := data[: self._left].decode(errors="replace").strip("\n"):
                self.log.info("agent printed", text=text)
            self._left -= len(data)
            if self._left <= 0:
                self.log.warning("agent printed more than is logged", limit=MAX_OUTPUT)
        return True

    def _end(self) -> None:
        self._open = False
        if self._timer:
            self._timer.cancel()
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
