"""Two that are measured turn by turn, in one run: how one is beside the other, and how much that varies."""

import random
import statistics
from collections.abc import Awaitable, Callable
from typing import Any

PAIRS = 20

Turn = Callable[[], Awaitable[dict[str, float]]]
"""Measures one side once: figures by their names."""


async def compared(one: Turn, other: Turn, times: int = PAIRS) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Measure both turn by turn; who is first changes."""
    pairs: list[tuple[dict[str, float], dict[str, float]]] = []
    for number in range(times):
        if number % 2:
            first, second = await one(), await other()
        else:
            second, first = await other(), await one()
        pairs.append((first, second))
        print("  " + "   ".join(f"{name} {first[name]:.2f} / {second[name]:.2f}" for name in first), flush=True)
    return pairs


def summed_up(pairs: list[tuple[dict[str, float], dict[str, float]]], name: str) -> dict[str, Any]:
    """Say how the other side is beside the one, of one figure: medians, and the spread of their ratios."""
    ones, others = [pair[0][name] for pair in pairs], [pair[1][name] for pair in pairs]
    ratios = sorted(other / one for one, other in zip(ones, others, strict=True))
    resampled = sorted(statistics.median(random.choices(ratios, k=len(ratios))) for _ in range(2000))  # noqa: S311
    return {
        "one": round(statistics.median(ones), 3),
        "other": round(statistics.median(others), 3),
        "difference": round(statistics.median(b - a for a, b in zip(ones, others, strict=True)), 3),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_95": [round(resampled[50], 3), round(resampled[1949], 3)],
        "ratios": [round(ratio, 3) for ratio in (ratios[0], *statistics.quantiles(ratios), ratios[-1])],
    }
