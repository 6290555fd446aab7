"""Puts pictures together into one that moves: an animated PNG, which every browser shows."""

import struct
import zlib
from collections.abc import Iterator, Sequence

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEAD = struct.Struct(">I4s")


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give the parts of a PNG, each with its name."""
    at = len(SIGNATURE)
    while at < len(png):
        length, name = HEAD.unpack_from(png, at)
        at += HEAD.size
        yield name, png[at : at + length]
        at += length + 4


def moving(frames: Sequence[bytes], pause: int, rest: int) -> bytes:
    """Return pictures of one size as one that moves: so many milliseconds each, and the last one for longer."""
    kept = [frame for frame, before in zip(frames, (b"", *frames), strict=False) if frame != before]
    heads = [dict(chunks(frame))[b"IHDR"] for frame in kept]
    if len(set(heads)) != 1:
        raise ValueError("the pictures are not of one size")
    width, height = struct.unpack_from(">II", heads[0])
    parts = [SIGNATURE, _chunk(b"IHDR", heads[0]), _chunk(b"acTL", struct.pack(">II", len(kept), 0))]
    number = 0
    for index, frame in enumerate(kept):
        delay = rest if index == len(kept) - 1 else pause
        parts.append(_chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, 0, 0, delay, 1000, 0, 0)))
        number += 1
        for name, data in chunks(frame):
            if name != b"IDAT":
                continue
            parts.append(_chunk(b"IDAT", data) if index == 0 else _chunk(b"fdAT", struct.pack(">I", number) + data))
            number += index > 0
    return b"".join([*parts, _chunk(b"IEND", b"")])


def _chunk(name: bytes, data: bytes) -> bytes:
    return HEAD.pack(len(data), name) + data + struct.pack(">I", zlib.crc32(name + data))
