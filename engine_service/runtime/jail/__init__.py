"""What a zygote gives up before it imports agents, and what each run gives up besides: a jail, layer by layer.

A layer that the kernel, or whoever runs us, does not grant is named: the engine says which can be done without.
"""

import os
import resource
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from engine_service.runtime.jail import capabilities, files, landlock, namespaces, rooms, seccomp
from engine_service.runtime.jail.rooms import Rooms
from engine_service.wire import PROCESSES, JailTerms

BACKLOG = 1024
DESCRIPTORS = 256
"""Of each process of a run. With how many it may have, also what it can take of what the kernel counts by users."""


class Jail:
    """A zygote's jail, and what its runs have of it."""

    def __init__(self, terms: JailTerms) -> None:
        self.terms = terms
        """What the engine wants of it."""
        self._ports: tuple[int, ...] = ()
        self._rules: list[landlock.Rule] = []
        self._own: list[landlock.Rule] = []
        self._has_mounts = False
        self._rooms: Rooms | None = None  # but for a process that was started inside
        self.missing: dict[str, str] = {}
        """Which layers there are not, and why."""

    @classmethod
    def inside(cls, terms: JailTerms, port: int) -> Self:
        """Return the jail that this process is in already, having been started in it."""
        jail = cls(terms)
        jail.missing = dict.fromkeys(terms.missing, "")
        jail._ports = (port,) if port else ()
        jail._open_rules(terms.own)
        jail._narrower = seccomp.without_namespaces()
        return jail

    @property
    def layers(self) -> list[str]:
        """Which layers hold."""
        return [layer for layer in LAYERS if layer not in self.missing]

    def close(self, *, has_broker: bool) -> socket.socket | None:
        """Give up all that runs must not have, in the order in which the kernel allows it.

        Returns what listens inside, for whoever carries runs' requests out.
        """
        self._layer("network", _leave_the_network)
        door = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) if has_broker else None
        self._ports = (door.getsockname()[1],) if door else ()
        self._layer("disk", self._bound_files)
        self._rooms = Rooms.open(self.terms.home, self.terms.disk) if self._has_mounts else Rooms.plain(self.terms.home)
        own = self.own_room
        self._open_rules(own)
        with suppress(OSError):
            namespaces.be_counted()
        self._layer("capabilities", capabilities.forgo)
        _move_to(own)
        # Root that has none of its rights may still write where root may: the folder of all rooms is named.
        # What the kernel says of us is read later, too: while it is held open, it stays the same to the kernel.
        self._own = [
            *landlock.beneath([self.terms.home], landlock.RIGHTS),
            *landlock.beneath([f"/proc/{os.getpid()}"], landlock.READ),
        ]
        self._layer("files", lambda: landlock.restrict([*self._rules, *self._own], self._ports))
        self._layer("syscalls", self._filter)
        return door

    def _layer(self, name: str, make: Callable[[], None]) -> None:
        try:
            make()
        except OSError as error:
            self.missing[name] = f"{error.strerror or error}"

    def _bound_files(self) -> None:
        if "network" in self.missing:
            raise OSError("it needs a user namespace")
        namespaces.write_nowhere_but(self.terms.home, rooms.FOLDERS)
        self._has_mounts = True

    def _open_rules(self, own: str) -> None:
        self._rules = [
            *landlock.beneath(files.readable(self.terms.read), landlock.READ),
            *landlock.beneath(files.listed(), landlock.READ_DIR),
            *landlock.beneath(files.DEVICES, landlock.READ_FILE | landlock.WRITE_FILE),
            *landlock.beneath([own], landlock.READ),
        ]

    def _filter(self) -> None:
        self._narrower = seccomp.without_namespaces()
        has_scopes = landlock.KNOWN >= landlock.WITH_SCOPES
        seccomp.allow(attributes=self._has_mounts, signals=has_scopes)

    def seal(self) -> None:
        """Let nothing that runs share be changed from now on: agents are imported."""
        with suppress(OSError):  # a module holds a file of its own open there, to write
            self._zygotes_rooms.seal()

    def make_room(self) -> int:
        """Make a folder for a run to come. Raises OSError."""
        return self._zygotes_rooms.make()

    def drop_room(self, number: int) -> None:
        """Take a run's folder away."""
        self._zygotes_rooms.drop(number)

    def room(self, number: int) -> str:
        """Return where a run's folder is."""
        return self._zygotes_rooms.path(number)

    @property
    def own_room(self) -> str:
        """Where the zygote's is."""
        return self._zygotes_rooms.path(rooms.OWN)

    @property
    def _zygotes_rooms(self) -> Rooms:
        assert self._rooms, "it is a zygote that asks"  # noqa: S101 - for the reader, and mypy
        return self._rooms

    def confine(self, room: str) -> None:
        """Narrow all of it to one run, which this process is from now on, and its folder. Raises OSError."""
        if self._rooms:
            self._rooms.leave()
        with suppress(OSError):  # said at boot, where there are none
            namespaces.unshare(namespaces.NEW_USER)  # so that its processes are counted apart
            capabilities.forgo()
        _limit(resource.RLIMIT_NPROC, PROCESSES)
        if "disk" in self.missing:
            _limit(resource.RLIMIT_FSIZE, self.terms.disk)  # of each file: better than nothing
        _move_to(room)
        whole = landlock.beneath([room], landlock.RIGHTS)
        if "files" not in self.missing:
            landlock.restrict([*self._rules, *whole], self._ports)
        landlock.close([*self._rules, *self._own, *whole])
        _limit(resource.RLIMIT_NOFILE, DESCRIPTORS)
        if "syscalls" not in self.missing:
            self._narrower.install()


LAYERS = ("network", "files", "syscalls", "environment", "capabilities", "disk")


def _leave_the_network() -> None:
    namespaces.enter()
    namespaces.raise_loopback()


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _move_to(path: str) -> None:
    os.chdir(path)
    os.environ |= dict.fromkeys(("HOME", "TMPDIR"), path)
    tempfile.tempdir = None
