"""What is done to memory that children will share, so that they copy little of it. See decision 10."""

import gc

from engine_service.runtime.memory import heap, holes, huge_pages, immortal


def settle() -> list[object]:
    """Let what is here stay for good: this process is about to be forked. Return what has to be kept for that."""
    gc.collect()
    kept = holes.filled()
    immortal.make_immortal()
    heap.fill()
    gc.freeze()  # a child that collects garbage need not look at it, and so copy every page
    huge_pages.collapse()
    return kept
