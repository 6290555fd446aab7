"""Where a run happens. One small protocol, and an implementation for each kind of worker."""

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

from engine_service.wire import Work

WELL, KILLED = "exit status 0", "killed by SIGKILL"
OUT_OF_MEMORY = "killed by the kernel, for the memory that it needed"
"""How a process ended, in words: well, by force, or since it needed more than a run may have."""


class WorkerError(Exception):
    """No worker could be had for a run. Nothing of the run exists."""


class Worker(Protocol):
    """Where one run happens. Made for one run, and never used again."""

    pid: int
    """The number of its process; 0 where that is the engine's own."""

    async def read(self) -> bytes:
        """Wait for frames and return what is there, cut anywhere; nothing once there will be no more.

        Cancelling the wait loses nothing.
        """
        ...

    def tell(self, tag: int, body: bytes) -> None:
        """Tell the agent's side a word: ANSWER, or SAVED. Nobody waits for whether it listens."""
        ...

    def stop(self, grace: float) -> None:
        """Tell the agent to stop, and end it `grace` seconds later if it hasn't. `read` goes on until it has ended.

        Said again, it may end the agent sooner, and never later: nobody has more time than the first verdict gave.
        """
        ...

    async def close(self) -> str:
        """Leave nothing of the run behind, and say in words how it ended. Ends an agent that still runs."""
        ...


class Workers(Protocol):
    """Gives every run a worker of its own."""

    async def start(self, work: Work) -> Worker:
        """Start an agent. Raises WorkerError."""
        ...


class Watcher(Protocol):
    """Hears of processes, for an operator's figures."""

    def born(self, seconds: float) -> None:
        """Hear that one was born, and how long that took."""
        ...

    def not_born(self) -> None:
        """Hear that one could not be born."""
        ...

    def replaced(self) -> None:
        """Hear that a zygote which had died has a successor."""
        ...


class Broker(Protocol):
    """Carries runs' calls to model servers, and knows a run by its token."""

    async def grant(self, work: Work) -> str:
        """Return a token for a run that is about to begin."""
        ...

    def follow(self, token: str, worker: Worker) -> None:
        """Learn where the run happens: it hears of its calls."""
        ...

    def revoke(self, token: str) -> None:
        """Let a token be worth nothing, since its run has ended."""
        ...

    def listen(self, door: socket.socket) -> Callable[[], None]:
        """Take calls there, too, and return what ends that."""
        ...


class NoBroker:
    """Carries nothing."""

    async def grant(self, work: Work) -> str:  # noqa: ARG002
        """Give no token."""
        return ""

    def follow(self, token: str, worker: Worker) -> None:
        """Hear nothing."""

    def revoke(self, token: str) -> None:
        """Take nothing back."""

    def listen(self, door: socket.socket) -> Callable[[], None]:
        """Let nobody call."""
        door.close()
        return door.close


NONE = NoBroker()


class Unwatched:
    """Nobody's."""

    def born(self, seconds: float) -> None:
        """Tell nobody."""

    def not_born(self) -> None:
        """Tell nobody."""

    def replaced(self) -> None:
        """Tell nobody."""


def sooner(before: asyncio.TimerHandle | None, now: asyncio.TimerHandle) -> asyncio.TimerHandle:
    """Return the timer that ends a run first, and cancel the other."""
    if before is None:
        return now
    first, second = sorted((before, now), key=asyncio.TimerHandle.when)
    second.cancel()
    return first
