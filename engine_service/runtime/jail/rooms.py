"""Rooms: each run's own folder, which is as large as it may be, and is gone with it.

A process of its own makes them. It was forked before the zygote gave up its rights, runs no agent's code, and does what
the zygote asks: to put up an empty folder, or to take one away, by its number. Where a room is, nobody can guess: a run
knows its own, and may not list what they are in, which nobody can write to either.
"""

import os
import secrets
import shutil
import signal
import socket
import struct
from contextlib import suppress
from typing import NoReturn, Self

from engine_service.runtime.jail import namespaces
from engine_service.runtime.jail.kernel import PR_SET_NO_NEW_PRIVS, prctl

ASKED = struct.Struct("!cI")
MAKE, DROP, SEAL = b"+", b"-", b"="
ANSWERED = struct.Struct("!i32s")
"""An error's number, or none, and what the room is called."""
FOLDERS = 16 * 1024 * 1024
"""Bytes of what rooms are in: there is nothing else."""
MOST = 65536
"""Rooms that there can be. The zygote imports agents, and may be one of theirs."""
OWN = 0
"""The number of the zygote's own."""


class Rooms:
    """The zygote's side."""

    def __init__(self, home: str, keeper: socket.socket | None) -> None:
        self._home = home
        self._keeper = keeper
        self._names = dict[int, str]()
        self._count = OWN

    @classmethod
    def open(cls, home: str, size: int) -> Self:
        """Start the keeper, who is to have the rights that we still have."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            try:
                ours.close()
                Keeper(theirs, home, size).serve()
            finally:
                os._exit(0)
        theirs.close()
        return cls._with_own(home, ours)

    @classmethod
    def plain(cls, home: str) -> Self:
        """Have folders that are not bounded, where nothing can be mounted."""
        return cls._with_own(home, None)

    @classmethod
    def _with_own(cls, home: str, keeper: socket.socket | None) -> Self:
        rooms = cls(home, keeper)
        rooms.make()
        return rooms

    def path(self, number: int) -> str:
        """Return where a room is."""
        return f"{self._home}/{self._names[number]}"

    def make(self) -> int:
        """Make a room, and return its number. Raises OSError."""
        number, self._count = self._count, self._count % MOST + 1
        self._names[number] = self._asked(MAKE, number) if self._keeper else self._make_plain()
        return number

    def seal(self) -> None:
        """Let nothing be changed any more in the zygote's own room, which its runs can read. Raises OSError."""
        if self._keeper:
            self._asked(SEAL, OWN)

    def drop(self, number: int) -> None:
        """Take a room away, with all that is in it."""
        if self._keeper:
            with suppress(OSError):
                self._keeper.send(ASKED.pack(DROP, number))
        else:
            shutil.rmtree(self.path(number), ignore_errors=True)
        del self._names[number]

    def leave(self) -> None:
        """Be none of those who ask for rooms: a run."""
        if self._keeper:
            self._keeper.close()

    def _asked(self, what: bytes, number: int) -> str:
        """Ask the keeper, and return what a room is called. Raises OSError; without a keeper there is no jail."""
        assert self._keeper, "there is a keeper"  # noqa: S101 - for the reader, and mypy
        self._keeper.send(ASKED.pack(what, number))
        answer = self._keeper.recv(ANSWERED.size)
        if len(answer) < ANSWERED.size:
            raise SystemExit("the jail's keeper is gone")  # and so are we: another zygote takes our place
        error, name = ANSWERED.unpack(answer)
        if error:
            raise OSError(error, os.strerror(error))
        return str(name.decode())

    def _make_plain(self) -> str:
        name = secrets.token_hex(16)
        os.mkdir(f"{self._home}/{name}", 0o700)  # noqa: PTH102 - as it is done a thousand times
        return name


class Keeper:
    """The other side: makes rooms, and takes them away, until the zygote is gone."""

    def __init__(self, zygote: socket.socket, home: str, size: int) -> None:
        self._zygote = zygote
        self._home = home
        self._size = size
        self._names = dict[int, str]()
        # From here on only we can write there, by this descriptor: what is seen by all is mounted anew, to be read.
        self._writable = os.open(home, os.O_DIRECTORY | os.O_PATH)
        namespaces.mount_to_be_read(home)

    def serve(self) -> NoReturn:
        """Do what the zygote asks. It is believed in nothing but numbers."""
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        kept = sorted((self._zygote.fileno(), self._writable))
        for low, high in zip((-1, *kept), (*kept, os.sysconf("SC_OPEN_MAX")), strict=True):
            os.closerange(low + 1, high)
        while len(asked := self._zygote.recv(ASKED.size)) == ASKED.size:
            what, number = ASKED.unpack(asked)
            if what == DROP:
                self._drop(number)
                continue
            error = 0
            try:
                self._seal() if what == SEAL else self._make(number)
            except OSError as failure:
                error = failure.errno or 5
            self._zygote.send(ANSWERED.pack(error, self._names.get(number, "").encode()))
        os._exit(0)

    def _path(self, number: int) -> str:
        return f"{self._home}/{self._names[number]}"

    def _make(self, number: int) -> None:
        if number in self._names or len(self._names) > MOST:
            raise FileExistsError(17, "there is one")
        name = secrets.token_hex(16)
        os.mkdir(name, 0o700, dir_fd=self._writable)
        namespaces.mount_memory(f"{self._home}/{name}", self._size)
        self._names[number] = name

    def _seal(self) -> None:
        namespaces.let_be_read(self._path(OWN))

    def _drop(self, number: int) -> None:
        if number in self._names:
            with suppress(OSError):
                namespaces.unmount(self._path(number))
                os.rmdir(self._names[number], dir_fd=self._writable)
            del self._names[number]
