"""What a process prints, on its way to the engine's log."""

import asyncio
import os
from typing import Any

CHUNK = 64 * 1024
MAX_OUTPUT = 256 * 1024
"""Bytes of one process's output that are logged. What is more is read, so that nobody waits, and dropped."""


class Output:
    """The reading end of a process's standard output and error."""

    def __init__(self, log: Any) -> None:
        self.log = log
        """Where lines go. Changed when a waiting process gets its run."""
        self._reader, self.writer = os.pipe()
        self._handed_over = False
        os.set_blocking(self._reader, False)
        self._left = MAX_OUTPUT
        self._line = b""
        self._open = True
        asyncio.get_running_loop().add_reader(self._reader, self._read)

    def handed_over(self) -> None:
        """Close our copy of the writing end: from now on only the process has it."""
        if not self._handed_over:
            self._handed_over = True
            os.close(self.writer)

    def close(self) -> None:
        """Log what is still there, and let go."""
        while self._open and self._read():
            pass
        if self._open:
            self._end()

    def _read(self) -> bool:
        try:
            data = os.read(self._reader, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._end()
            return False
        if self._left > 0:
            *lines, self._line = (self._line + data[: self._left]).split(b"\n")
            self._left -= len(data)
            for line in lines:
                self._say(line)
            if self._left <= 0:
                self._say(self._line)
                self._line = b""
                self.log.warning("agent printed more than is logged", limit=MAX_OUTPUT)
        return True

    def _end(self) -> None:
        self._open = False
        asyncio.get_running_loop().remove_reader(self._reader)
        os.close(self._reader)
        if self._line:
            self._say(self._line)

    def _say(self, line: bytes) -> None:
        self.log.info("agent printed", line=line.decode(errors="replace"))
