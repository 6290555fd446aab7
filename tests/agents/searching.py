"""An agent that looks for something in the memory of its own process, without having it there by looking."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

from engine_service import Agent, RunContext

KNOWN = "what is known to be there, and is found"
PIECE = 1024 * 1024


class Searching(Agent):
    """Is told something backwards, and says whether its process has it forwards."""

    async def run(self, context: RunContext, input: str) -> str:
        # Written in another way, and not turned around: what is turned around is there, and may be found.
        wanted = re.compile(b"".join(b"\\x%02x" % byte for byte in reversed(input.encode())))
        with io.FileIO("/proc/self/mem") as memory:
            return str(any(wanted.search(piece) for region in regions() for piece in pieces(memory, *region)))


def regions() -> list[tuple[int, int]]:
    """Return what the process may read of itself."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    readable = (line.split()[0].split("-") for line in lines if line.split()[1].startswith("r") and "[v" not in line)
    return [(int(begin, 16), int(end, 16)) for begin, end in readable]


def pieces(memory: io.FileIO, begin: int, end: int) -> Iterator[bytes]:
    for at in range(begin, end, PIECE):
        memory.seek(at)
        try:
            yield memory.read(min(PIECE + 4096, end - at))
        except OSError:  # mapped, and nothing behind it
            return
