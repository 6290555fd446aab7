"""A process of the engine's that helps it: started with exec, and told to end by letting go of its socket."""

import asyncio
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import structlog

from engine_service.workers.output import Output

MOST_UNSENT = 10_000
"""Messages that wait for one which hears nothing. Then it is killed."""
PATIENCE = 5.0
"""Seconds that it may take to end."""
PAUSE, LONGEST = 0.5, 30.0
"""Seconds until one that died is started again; each time that it can't be, twice as many, up to the second."""


class HelperError(Exception):
    """It cannot be had."""


class Helper:
    """Starts it, speaks to it in messages, and starts it again when it dies."""

    def __init__(
        self,
        name: str,
        module: str,
        *,
        max_message: int,
        on_message: Callable[[bytes], None],
        user: tuple[int, int] | None = None,
    ) -> None:
        self._name = name
        self._module = module
        self._user = user
        self._max_message = max_message
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger()
        self._unsent: list[tuple[bytes, list[int]]] = []
        self._link: socket.socket | None = None
        self._tasks = set[asyncio.Task[None]]()
        self._ending = False
        self._output: Output
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_there(self) -> bool:
        """Whether it has begun, and can be spoken to."""
        return self._link is not None

    async def start(self, first: bytes, patience: float, accept: Callable[[bytes], None]) -> None:
        """Start it, and say something. It is there once its answer is accepted.

        Raises HelperError, and what that raises.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with ExitStack() as undo:
            undo.callback(ours.close)
            with theirs:
                self._output = Output(self._log.bind(process=self._name))
                undo.callback(self._output.close)
                self._process = process = self._exec(theirs)
                undo.callback(process.wait)
                undo.callback(process.kill)
            self._output.close_child_ends()
            accept(await self._converse(ours, first, patience))
            undo.pop_all()
        self._link = ours
        self._loop.add_reader(ours, self._hear, ours)

    async def _converse(self, link: socket.socket, first: bytes, patience: float) -> bytes:
        try:
            async with asyncio.timeout(patience):
                await self._loop.sock_sendall(link, first)
                said = await self._loop.sock_recv(link, self._max_message)
        except TimeoutError as error:
            raise HelperError(f"it says nothing for {patience:g} seconds") from error
        except OSError as error:
            raise HelperError("it ended") from error
        if not said:
            raise HelperError("it ended")
        return said

    def _exec(self, link: socket.socket) -> subprocess.Popen[bytes]:
        """Start it: with exec, since it is to know nothing of ours."""
        user, group = self._user or (None, None)
        return subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", self._module, str(link.fileno()), str(os.getpid())],
            pass_fds=(link.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=self._output.writer,
            stderr=self._output.writer,
            env=_environ() | home_of(self._user),
            user=user,
            group=group,
            extra_groups=[group] if group is not None else None,
            start_new_session=True,
        )

    def say(self, message: bytes, *descriptors: int) -> None:
        """Say something, after what could not be said yet; not to one that is dead.

        Raises OSError when there is no room for the descriptors that come along.
        """
        if self._link:
            ours: list[int] = []
            try:
                for descriptor in descriptors:
                    ours.append(os.dup(descriptor))  # noqa: PERF401 - those there are by then, too, are to be closed
            except OSError:
                _close(ours)
                raise
            self._unsent.append((message, ours))
            self._flush(self._link)

    def keep_starting(self, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have another one: `start` it until that succeeds. It may raise OSError and HelperError."""
        if not self._ending:
            self._log.error(f"the {self._name} died")
            self.keep(self._start_again(start))

    async def _start_again(self, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        pause = PAUSE
        while not self._ending:
            try:
                await start()
            except (OSError, HelperError) as error:
                self._log.error(f"no {self._name} can be had", error=str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST)
            else:
                return

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done until this ends."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def kill(self) -> None:
        """End it at once."""
        if self._process:
            self._process.kill()

    async def close(self) -> None:
        """End it."""
        self._ending = True
        for task in self._tasks:
            task.cancel()
        self._let_go()
        if self._process:
            try:
                await asyncio.to_thread(self._process.wait, PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _hear(self, link: socket.socket) -> None:
        try:
            data = link.recv(self._max_message)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data and self._process:
            self._let_go()
            self._process.kill()  # it may have let go, and live
            self._process.wait()
        self._on_message(data)

    def _flush(self, link: socket.socket) -> None:
        try:
            while self._unsent:
                message, descriptors = self._unsent[0]
                socket.send_fds(link, [message], descriptors)
                _close(self._unsent.pop(0)[1])
            self._loop.remove_writer(link)
        except BlockingIOError:
            self._loop.add_writer(link, self._flush, link)
        except OSError:  # it is dead
            self._forget_unsent()
        if len(self._unsent) > MOST_UNSENT:
            self._log.error(f"the {self._name} does not listen: it is killed")
            self.kill()
            self._forget_unsent()

    def _forget_unsent(self) -> None:
        while self._unsent:
            _close(self._unsent.pop()[1])

    def _let_go(self) -> None:
        if self._link:
            self._forget_unsent()
            self._loop.remove_reader(self._link)
            self._loop.remove_writer(self._link)
            self._link.close()
            self._link = None
            self._output.close()


def _environ() -> dict[str, str]:
    """Return the engine's environment without its settings, its secrets among them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RUNWIRE_")}


def home_of(user: tuple[int, int] | None) -> dict[str, str]:
    """Return what a user's environment says of them."""
    if user is None:
        return {}
    known = pwd.getpwuid(user[0])
    return {"HOME": known.pw_dir, "USER": known.pw_name, "LOGNAME": known.pw_name}


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
