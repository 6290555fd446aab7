"""What the engine and a run's process say to each other, on the engine's side: work one way, events the other."""

import array
import asyncio
import fcntl
import os
import pickle
import socket
import sys
import termios
from contextlib import suppress

from engine_service.wire import MAX_OPEN, MAX_QUESTION, WORK, Work, word

CHUNK = 64 * 1024
"""Bytes that are read at once: what the child has said since, in one piece."""
BREATH = 0.001
"""Seconds between two readings of little. Each one wakes the engine, the gateway and the browser: an agent that talks
fast would keep all of them busy with crumbs. What follows a silence is read at once. See decision 8."""
QUEUE = 128 * 1024
"""Bytes that we ask the kernel to hold for us, so that an agent need not wait while others have the processors. A user
who is not root may have 64 MiB of it, which is enough for as many runs as there may be by default."""


class Channel:
    """A socket for the work, whose end means: stop; and a pipe for events.

    A pipe takes small pieces for a third of what a socket asks. See decision 8.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work, self._childs_work = socket.socketpair()
        self._work.setblocking(False)
        self._events, self._childs_events = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(OSError):  # a user may have so much of it, and no more
            fcntl.fcntl(self._events, fcntl.F_SETPIPE_SZ, QUEUE)
        self._to_come = sys.maxsize  # bytes of events that are still to be read
        self._unsent = bytearray()  # of what was said after the work
        self._is_closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._rested = 0.0  # when to read again

    @property
    def childs(self) -> tuple[int, int]:
        """The child's ends: of the work, and of the events."""
        return self._childs_work.fileno(), self._childs_events

    def close_child_ends(self) -> None:
        """Close our copies of what is the child's: only its own end may keep the channel open."""
        if self._childs_work.fileno() >= 0:
            self._childs_work.close()
            os.close(self._childs_events)

    async def begin(self, work: Work) -> None:
        """Send the work. Raises OSError when there is nobody to take it."""
        await self._loop.sock_sendall(self._work, word(WORK, pickle.dumps(work)))

    def tell(self, tag: int, body: bytes) -> None:
        """Send a word, when there is room."""
        if not self._is_closed:
            self._unsent += word(tag, body)
            self._send()

    @property
    def is_overfull(self) -> bool:
        """Whether more waits to be taken than the questions that may be open have for answers."""
        return len(self._unsent) > MAX_OPEN * MAX_QUESTION

    def stop(self) -> None:
        """Tell the agent to stop."""
        self._forget_unsent()
        with suppress(OSError):
            self._work.shutdown(socket.SHUT_WR)

    async def read(self) -> bytes:
        """Wait for frames and return what is there, cut anywhere; nothing once the process has closed its end.

        Events that follow one another within BREATH are read together.
        """
        early = self._rested - self._loop.time()
        if early > 0:
            await asyncio.sleep(early)
        while not self._is_closed:  # or its number would be another's
            try:
                data = os.read(self._events, min(CHUNK, self._to_come))
            except BlockingIOError:
                await self._readable()
            else:
                self._to_come -= len(data)
                self._rested = self._loop.time() + BREATH if len(data) < CHUNK // 2 else 0.0
                return data
        return b""

    def seal(self) -> None:
        """Let what is there be all there is, even if a process that the child left behind holds its end."""
        if self._is_closed:
            return
        held = array.array("i", [0])
        fcntl.ioctl(self._events, termios.FIONREAD, held)
        self._to_come = held[0]
        if self._waiter:
            _wake(self._waiter)

    def close(self) -> None:
        """Let go."""
        self._is_closed = True
        self._forget_unsent()
        self.close_child_ends()
        self._work.close()
        os.close(self._events)

    def _send(self) -> None:
        try:
            del self._unsent[: self._work.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it is gone
            self._unsent.clear()
        if self._unsent:
            self._loop.add_writer(self._work, self._send)
        else:
            self._loop.remove_writer(self._work)

    def _forget_unsent(self) -> None:
        if self._unsent:
            self._unsent.clear()
            self._loop.remove_writer(self._work)

    async def _readable(self) -> None:
        self._waiter = self._loop.create_future()
        self._loop.add_reader(self._events, _wake, self._waiter)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._loop.remove_reader(self._events)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
