"""One run's process, as the engine sees it: used once, and never without an end."""

import asyncio
import os
import pickle
import signal
import socket
from contextlib import suppress

import structlog

from engine_service.agent import Work
from engine_service.isolation import GRACE
from engine_service.isolation.child import LENGTH
from engine_service.isolation.output import Output

CHUNK = 64 * 1024
"""Bytes that are read at once: what the child has said since, in one piece."""
BREATH = 0.001
"""Seconds between two readings of little. Each one wakes the engine, the gateway and the browser: an agent that talks
fast would keep all of them busy with crumbs. What follows a silence is read at once. See decision 8."""
LONG_QUEUE = 4 * 1024 * 1024
"""Bytes that we ask the kernel to hold for a reader; it gives what it gives. Most of it goes into its own accounts."""


class ProcessPlace:
    """Where one run happens: a process, the channel its events come through, and the pipe for what it prints."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger()
        self._channel, self.child_end = socket.socketpair()
        self._channel.setblocking(False)
        self.child_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONG_QUEUE)
        self.output = Output(self._log)
        self._exited = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._pidfd = -1
        self._rested = 0.0  # when to read again
        self.pid = 0

    def born(self, pid: int, pidfd: int) -> None:
        """Learn which process it is. The descriptor names it for good, even after its number is another's."""
        self.pid, self._pidfd = pid, pidfd

    def handed_over(self) -> None:
        """Close our copies of what is the child's: only its own end may keep the channel open."""
        self.child_end.close()
        self.output.handed_over()

    async def begin(self, work: Work) -> None:
        """Give the process its run. Raises OSError when it died while it waited."""
        self.output.log = self._log.bind(**work.labels())
        data = pickle.dumps(work)
        await self._loop.sock_sendall(self._channel, LENGTH.pack(len(data)) + data)

    async def read(self) -> bytes:
        """Wait for frames and return what is there, cut anywhere; nothing once the process has closed its end.

        Events that follow one another within BREATH are read together.
        """
        early = self._rested - self._loop.time()
        if early > 0:
            await asyncio.sleep(early)
        while True:
            try:
                data = self._channel.recv(CHUNK)
            except BlockingIOError:
                await self._readable()
            except OSError:
                return b""
            else:
                self._rested = self._loop.time() + BREATH if len(data) < CHUNK // 2 else 0.0
                return data

    def stop(self, grace: float) -> None:
        """Close our end for writing, which tells the agent to stop. Kill it `grace` seconds later."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(grace, self.kill)

    def kill(self) -> None:
        """End the process, and those it started, at once."""
        if not self._exited.done():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def close(self) -> str:
        """Wait until nothing of the run is left, and say how its process ended. What it still says is dropped."""
        if self._timer is None:
            self.stop(GRACE)
        while await self.read():  # an agent that cleans up is not to wait for a reader
            pass
        status = await self._exited
        self._let_go()
        return _how(status)

    def exited(self, status: int | None) -> None:
        """Learn that the process is gone, and with what exit status if that can be known."""
        if not self._exited.done():
            self._exited.set_result(status)
            with suppress(OSError):  # what it said is read to its end, even if a process it left holds the channel
                self._channel.shutdown(socket.SHUT_RD)

    def orphaned(self) -> None:
        """Go on without the zygote: its child is not ours to wait for, but we still see it end."""

        def gone() -> None:
            self._loop.remove_reader(self._pidfd)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)  # what it started; the zygote would have done it
            self.exited(None)

        if not self._exited.done():
            self._loop.add_reader(self._pidfd, gone)

    async def _readable(self) -> None:
        waiter = self._loop.create_future()
        self._loop.add_reader(self._channel, _wake, waiter)
        try:
            await waiter
        finally:
            self._loop.remove_reader(self._channel)

    def _let_go(self) -> None:
        if self._timer:
            self._timer.cancel()
        self.output.close()
        self._channel.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def discard(self) -> None:
        """Let go of a place that has no run. Its process, if there is one, sees the channel close, and ends."""
        self.handed_over()
        self._let_go()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _how(status: int | None) -> str:
    if status is None:
        return "its end is not known"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-status}"
