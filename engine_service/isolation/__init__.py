"""Where a run happens. One small protocol, and an implementation for each kind of place."""

from typing import Protocol

from engine_service.agent import Work

GRACE = 2.0
"""Seconds that an agent has to clean up after it was told to stop."""


OUT_OF_MEMORY = "killed by the kernel, for the memory that it needed"
"""How a process ended that needed more than a run may have."""


class PlaceError(Exception):
    """No place could be had for a run. Nothing of the run exists."""


class Place(Protocol):
    """Where one run happens. Made for one run, and never used again."""

    async def read(self) -> bytes:
        """Wait for frames and return what is there, cut anywhere; nothing once there will be no more.

        Cancelling the wait loses nothing.
        """
        ...

    def stop(self, grace: float) -> None:
        """Tell the agent to stop, and end it `grace` seconds later if it hasn't. `read` goes on until it has ended."""
        ...

    async def close(self) -> str:
        """Leave nothing of the run behind, and say how it ended if it ended badly. Ends an agent that still runs."""
        ...


class Isolation(Protocol):
    """Gives every run a place of its own."""

    async def start(self, work: Work) -> Place:
        """Start an agent. Raises PlaceError."""
        ...
