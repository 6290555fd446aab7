"""How many of something each user, or each address, has."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager


class Tally:
    """How many of something each has now. Whoever has none any more is forgotten."""

    def __init__(self) -> None:
        self._counts = Counter[str]()

    def __getitem__(self, whose: str) -> int:
        return self._counts[whose]

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def total(self) -> int:
        """How many all have together."""
        return self._counts.total()

    @contextmanager
    def one(self, whose: str) -> Generator[None]:
        """Count one for as long as it is there."""
        self._counts[whose] += 1
        try:
            yield
        finally:
            self._counts[whose] -= 1
            if not self._counts[whose]:
                del self._counts[whose]
