"""The agent that counts, as a task of the engine's."""

from tests.agents.models import Counting


class CountingTask(Counting):
    """Counts two calls."""

    isolation = "task"


del Counting
