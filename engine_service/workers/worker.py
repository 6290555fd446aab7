"""One run's process, as the engine sees it: used once, and never without an end."""

import asyncio
import os
import select
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress

import structlog

from engine_service.wire import GRACE, Work
from engine_service.workers import OUT_OF_MEMORY, sooner
from engine_service.workers.channel import Channel
from engine_service.workers.output import Output


class ChannelWorker(ABC):
    """Where one run happens, at the other end of a channel."""

    pid = 0

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = Channel()
        self._exited: asyncio.Future[str] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self.is_closed = False

    def on_exit(self, hear: Callable[[], None]) -> None:
        """Let somebody hear when nothing of the run is there any more."""
        self._exited.add_done_callback(lambda _: hear())

    async def read(self) -> bytes:
        """Wait for frames and return what is there, cut anywhere; nothing once there will be no more."""
        return await self._channel.read()

    def tell(self, tag: int, body: bytes) -> None:
        """Tell the agent's side a word. An agent that computes hears of it when it waits again.

        One that only ever asks, and hears nothing, is none.
        """
        self._channel.tell(tag, body)
        if self._channel.is_overfull:
            self.kill()

    def stop(self, grace: float) -> None:
        """Tell the agent to stop, and kill it `grace` seconds later; sooner, if that was said before."""
        self._channel.stop()
        self._timer = sooner(self._timer, self._loop.call_later(grace, self.kill))

    @abstractmethod
    def kill(self) -> None:
        """End the agent, and what it started, at once."""

    async def close(self) -> str:
        """Wait until nothing of the run is left, and say how its process ended. What it still says is dropped."""
        if self._timer is None:
            self.stop(GRACE)
        while await self.read():  # an agent that cleans up is not to wait for a reader
            pass
        how = await self._exited
        self.is_closed = True
        self._let_go()
        return how

    def _end(self, how: str) -> None:
        """Learn that nothing is left, and how it ended. What is in the channel is all that there will be."""
        if not self._exited.done():
            self._exited.set_result(how)
            self._channel.seal()

    def _let_go(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._channel.close()


class ProcessWorker(ChannelWorker):
    """Where one run happens: a process, the channel to it, and the pipe for what it prints."""

    def __init__(self) -> None:
        super().__init__()
        self._log = structlog.get_logger()
        try:
            self._output = Output(self._log)
        except OSError:
            self._channel.close()
            raise
        self._pidfd = -1
        self._is_orphan = False
        self._on_death: Callable[[], None]
        self.is_dead = False
        """Whether its process has ended, be it known how or not."""

    def born(self, pid: int, pidfd: int, on_death: Callable[[], None]) -> None:
        """Learn which process it is. The descriptor names it for good, even after its number is another's."""
        self.pid, self._pidfd, self._on_death = pid, pidfd, on_death
        self._loop.add_reader(pidfd, self._died)

    @property
    def childs(self) -> tuple[int, ...]:
        """The child's ends of everything, in the order in which the zygote takes them."""
        return *self._channel.childs, self._output.writer

    def close_child_ends(self) -> None:
        """Close our copies of what is the child's."""
        self._channel.close_child_ends()
        self._output.close_child_ends()

    async def begin(self, work: Work) -> None:
        """Give the process its run. Raises OSError when it died while it waited."""
        self._output.log = self._log.bind(**work.labels())
        await self._channel.begin(work)

    def kill(self) -> None:
        """End the process, and those it started, at once."""
        if not self._exited.done():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def exited(self, status: int | None, *, is_out_of_memory: bool = False) -> None:
        """Learn that the process is gone, and with what exit status if that can be known."""
        self._end(OUT_OF_MEMORY if is_out_of_memory else _how(status))

    def has_ended(self) -> bool:
        """Ask the kernel whether the process is gone."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def orphaned(self) -> None:
        """Go on without the zygote: its child is not ours to wait for, but we still see it end."""
        self._is_orphan = True
        if self.is_dead:
            self._finish_orphan()

    def _died(self) -> None:
        """See the process end. How it ended, and what it started, is the zygote's to say and to end."""
        self._loop.remove_reader(self._pidfd)
        self.is_dead = True
        if self._is_orphan:
            self._finish_orphan()
        else:
            self._on_death()

    def _finish_orphan(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # what it started; the zygote would have done it
        self.exited(None)

    def _let_go(self) -> None:
        self._output.close()
        super()._let_go()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def discard(self) -> None:
        """Let go of a worker that has no run, and end its process, if there is one."""
        if self._pidfd >= 0:
            self.kill()
        self._let_go()


def _how(status: int | None) -> str:
    if status is None:
        return "its end is not known"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-status}"
