"""Free places between objects that are there for good.

Python puts a small object where one of its size has ended. In a forked process that is a page which was shared until
then, and is copied for a few bytes. Where all holes are filled before the fork, what a child makes lies together, on
pages of its own.
"""

from collections.abc import Callable

POOL, HEAD = 16 * 1024, 48
"""Bytes of what Python divides among objects of one size, and of its own notes at the beginning of that."""
LARGEST = 512
"""Bytes of the largest object that is kept so. For each multiple of 16 there are pools of their own."""
MOST = 64 * 1024 * 1024
"""Bytes of one size that are tried. Whoever has more holes than that keeps them."""


def filled() -> list[object]:
    """Fill them, and return what does; nothing where memory is managed otherwise."""
    kept: list[object] = []
    for size in range(LARGEST, 0, -16):
        made: list[object] = []
        if _fill(size, made):
            kept += made
        elif not kept:
            return []  # not even the largest, of which there are few: this is another allocator
    return kept


def _fill(size: int, kept: list[object]) -> bool:
    """Make objects of a size until they fill a pool from its beginning to its end: there are no holes any more."""
    make, blocks = _maker(size), (POOL - HEAD) // size
    for _ in range(MOST // (4 * POOL)):
        made = [make() for _ in range(4 * blocks)]
        kept += made
        if _has_a_pool([id(each) for each in made], size, blocks):
            return True
    return False


def _has_a_pool(places: list[int], size: int, blocks: int) -> bool:
    """Tell whether a pool was filled in order. What is put into holes lies as those do whose places it takes."""
    heads = (number for number, place in enumerate(places) if place % POOL == HEAD)
    return any(places[head : head + blocks] == [places[head] + size * n for n in range(blocks)] for head in heads)


def _maker(size: int) -> Callable[[], object]:
    """Return what makes an object of that size: bytes need 33 besides their own."""
    small: dict[int, Callable[[], object]] = {16: object, 32: lambda: float("1.5")}
    return small.get(size) or (lambda: bytes(size - 33))
