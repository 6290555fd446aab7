"""How much a JSON text holds: counted before it is parsed, in pieces that give way to others."""

import asyncio

from runwire.service.values import MAX_VALUES

PIECE = 64 * 1024
"""Bytes that are looked at at once: at worst two milliseconds' worth."""
MOST = 3 * MAX_VALUES + 100
"""Commas, and containers, of a text: a message of the history has three values."""


class TooMuchError(Exception):
    """A text that holds more values than a frame may have."""


async def members(text: bytes) -> int:
    """Return how many members a text's objects have, if it is JSON. Raises TooMuchError when it holds too much."""
    found = commas = containers = 0
    rest, is_string = b"", False
    for begin in range(0, len(text), PIECE):
        if begin:
            await asyncio.sleep(0)
        piece = rest + text[begin : begin + PIECE]
        # Where a piece ends in the middle of an escape, its backslash belongs to the next one.
        rest = b"\\" * ((len(piece) - len(piece.rstrip(b"\\"))) % 2)
        piece = piece[: len(piece) - len(rest)].replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.split(b'"')
        outside = b"".join(parts[is_string::2])
        is_string ^= len(parts) % 2 == 0
        found += outside.count(b":")
        commas += outside.count(b",")
        containers += outside.count(b"[") + outside.count(b"{")
        if max(commas, containers) > MOST:
            raise TooMuchError
    return found
