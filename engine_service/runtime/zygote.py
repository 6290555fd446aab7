"""The process that every run's process is forked from: it has imported the agents, and never gRPC.

It is started with exec, has one thread, and does three things: it forks when the engine says so, tells the engine of
each child's end, and leaves nothing of a child behind. It speaks over one SOCK_SEQPACKET socket, whose end is its own.
"""

import ctypes
import io
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn, cast

from engine_service.runtime import child, leftovers, memory, registry, wait_for
from engine_service.runtime.agent import Agent
from engine_service.runtime.credentials import Credentials
from engine_service.runtime.folder import Folder
from engine_service.runtime.inheritance import Inheritance, exit_functions
from engine_service.runtime.jail import Jail
from engine_service.runtime.warm_up import Rehearsal, rehearse, warm_up, who_warms_up
from engine_service.wire import (
    EXEC,
    FORK,
    GRACE,
    LEASE,
    LEASED,
    NANOSECONDS,
    Exited,
    Forked,
    Imported,
    Importing,
    Jailed,
    NotForked,
    NotImported,
    Ready,
    RegistryError,
    Terms,
    Told,
    WarmingUp,
    Watched,
    told,
)
from runwire.service.kernel import PR_SET_DUMPABLE, PR_SET_PDEATHSIG

PR_SET_CHILD_SUBREAPER = 36
NO_ROOM = -1


class Zygote:
    """Forks, reaps, and sweeps."""

    def __init__(self, control: socket.socket, terms: Terms, engine: int) -> None:
        self._control = control
        self._terms = terms
        self._engine = engine
        self._jail: Jail | None = None
        self._children: dict[int, int] = {}  # with the number of each one's room, where there are rooms
        self._leased = set[int]()
        self._until = math.inf
        self._libc = ctypes.CDLL(None)
        self._pid = os.getpid()

    def serve(self) -> None:
        """Import the agents, say which there are, and fork until the engine is gone."""
        # What an agent printed before its process died is in the log.
        cast("io.TextIOWrapper", sys.stdout).reconfigure(line_buffering=True)
        child.ignore_stops()
        exits = exit_functions()
        if self._terms.assistant_model:
            os.environ["ASSISTANT_MODEL"] = self._terms.assistant_model
        try:
            drop_rights(self._terms)
            self._close_jail()
            self._credentials = Credentials(self._terms.upstreams, self._terms.broker)
            self._credentials.announce()
            before = leftovers.opened()
            found, left = self._prepare()
            opened = [what for number, what in leftovers.opened().items() if before.get(number) != what]
        except RegistryError as error:
            self._tell(NotImported(str(error)))
            return
        agents = {name: agent for name, (agent, _) in found.items()}
        self._agents: dict[str, type[Agent]] = registry.at_home(agents, self._terms)
        self._agents[Rehearsal.name] = Rehearsal
        # Only now: a module may have set handlers of its own at its import.
        child.ignore_stops()
        self._woken, self._wake = socket.socketpair()
        for side in (self._woken, self._wake):
            side.setblocking(False)
        signal.signal(signal.SIGCHLD, _wake)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        # Siblings cannot read one another's memory through /proc; what a child leaves behind comes to us.
        self._libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        self._libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._inheritance = Inheritance()
        self._credentials.find()
        if self._jail:
            self._jail.seal()
        self._kept = [] if self._terms.is_cluster else memory.settle()
        self._memory = child.data() + self._terms.memory
        self._own = _below()  # what the agents' modules started at their import
        # What the modules printed at their import is said here, and not once more by each child.
        sys.stdout.flush()
        sys.stderr.flush()
        self._tell_ready(found, exit_functions() - exits, left, opened)
        try:
            self._serve_engine()
        finally:
            self._end()
            signal.set_wakeup_fd(-1)  # or a signal would be written to whoever has its number next
            self._wake.close()
            self._woken.close()

    def _close_jail(self) -> None:
        """Give up what agents are not to have, before there is anything of theirs here. Raises RegistryError."""
        if self._terms.jail is None:
            return
        os.environ.pop("PYTHONPATH", None)  # it has been read: what a run starts finds its own
        self._jail = Jail(self._terms.jail)
        missing = self._jail.missing
        with self._jail.close(has_broker=bool(self._terms.upstreams)) or nullcontext() as door:
            if door:
                self._terms = replace(self._terms, broker=f"127.0.0.1:{door.getsockname()[1]}")
            self._tell(Jailed(self._jail.layers, missing), *(door.fileno(),) if door else ())
        if lacking := [f"{layer} ({missing[layer]})" for layer in self._jail.terms.require if layer in missing]:
            raise RegistryError(
                f"the jail cannot be closed, for want of {', '.join(lacking)}: docs/jail.md says what the kernel, or a "
                "container, has to allow; RUNWIRE_ENGINE_JAIL_REQUIRE says what must not be missing"
            )
        jail = replace(self._jail.terms, missing=tuple(missing), own=self._jail.own_room)
        self._terms = replace(self._terms, jail=jail)

    def _prepare(self) -> tuple[dict[str, tuple[type[Agent], str]], list[str]]:
        """Import the agents, and warm up; return what was found, and what was left open.

        Code that never comes back must not outlive the engine that waits for it.
        """
        self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self._engine:
            sys.exit(1)
        modules = (module for module in self._terms.modules if module not in self._terms.apart)
        found = registry.find(modules, on_import=lambda module: self._tell(Importing(module)))
        child.ignore_stops()
        left: list[str] = []
        if not self._terms.is_cluster:  # where there is one run, it is as well done in there
            rehearse()
            left = self._warm_up(agent for agent, _ in found.values())
        self._libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)  # from now on, what is left of an engine ends in order
        return found, left

    def _warm_up(self, agents: Iterable[type[Agent]]) -> list[str]:
        """Let agents prepare what their runs will share, and return what they left open."""
        forked = [
            agent
            for agent in agents
            if agent.fork and (agent.isolation or self._terms.isolation) not in {"task", "ray"}
        ]
        left: list[str] = []
        for agent in who_warms_up(forked):
            self._tell(WarmingUp(agent.__qualname__))
            left += warm_up(agent)
        return left

    def _tell_ready(
        self, found: dict[str, tuple[type[Agent], str]], exits: int, left: list[str], opened: list[str]
    ) -> None:
        """Say who we are, in pieces: a message has a size that it can have."""
        for agent, source in found.values():
            self._tell(Imported(registry.described(agent, source, self._terms.isolation)))
        for file in _files() if self._terms.reload else ():
            self._tell(Watched(file))
        # Counted by the kernel: not every library's threads are Python's.
        threads = sum(1 for _ in Path("/proc/self/task").iterdir()) - 1
        self._tell(Ready(threads, exits, left, opened))

    def _serve_engine(self) -> None:
        """Do what the engine says, and take in the dead, until the engine is gone."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll(self._patience()):
                if descriptor == self._woken.fileno():
                    self._reap()
                elif not self._obey():
                    return

    def _patience(self) -> int | None:
        """Return the milliseconds that there are until leased children end. Theirs are over: they end."""
        if self._leased and time.monotonic() > self._until:
            for pid in self._leased:
                _kill_group(pid)
            self._leased.clear()
        return int(max(self._until - time.monotonic(), 0) * 1000) + 1 if self._leased else None

    def _obey(self) -> bool:
        """Do what the engine says; False when it is gone."""
        try:
            message, descriptors, *_ = socket.recv_fds(self._control, LEASE.size, 3)
        except OSError:
            return False
        if message.startswith(LEASED):
            _, pid, until = LEASE.unpack(message)
            self._until = until / NANOSECONDS
            if pid in self._children:
                self._leased.add(pid)
            return True
        if message not in {FORK, EXEC}:
            return False
        try:
            self._fork(*descriptors, afresh=message == EXEC)
        except OSError as error:
            self._tell(NotForked(str(error)))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _fork(self, work: int, events: int, output: int, *, afresh: bool) -> None:
        room = self._jail.make_room() if self._jail else NO_ROOM
        try:
            pid = os.fork()
        except OSError:
            self._drop_room(room)
            raise
        if pid == 0:
            self._become_child(work, events, output, room, afresh=afresh)
        self._children[pid] = room
        pidfd = os.pidfd_open(pid)
        self._tell(Forked(pid), pidfd)
        os.close(pidfd)

    def _drop_room(self, room: int) -> None:
        if self._jail:
            self._jail.drop_room(room)

    def _become_child(self, work: int, events: int, output: int, room: int, *, afresh: bool) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for side in (self._control, self._woken, self._wake):
                side.close()
            os.setsid()
            if self._terms.is_cluster:  # a cluster may kill us at any time, and there is nobody who would know
                self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() != self._pid:
                    os._exit(1)
            for descriptor in (work, events):  # they came through a socket, which makes them inheritable
                os.set_inheritable(descriptor, afresh)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            # What the agent's own processes leave behind stays below this one as long as it lives.
            self._libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            terms = self._terms
            folder = self._jail.room(room) if self._jail else f"{terms.home}/{os.getpid()}"
            if afresh:
                module = "engine_service.runtime.afresh"
                arguments = (str(work), str(events), terms.encoded(), folder)
                options = ["-P"] if self._jail else []
                os.execv(sys.executable, [sys.executable, *options, "-m", module, *arguments])  # noqa: S606 - our own command
            self._inheritance.renounce()
            if self._jail:
                self._jail.confine(folder)
            given = child.Given(self._agents, terms, self._credentials, Folder(folder))
            child.live(work, events, given, self._memory)
        finally:
            os._exit(1)

    def _reap(self) -> None:
        """Take in the dead, and end whatever they started."""
        with suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
        # Looked at first and reaped second: its number can be no other's before its group has been ended.
        while dead := _dead():
            if dead in self._children:
                _kill_group(dead)
            _, status = os.waitpid(dead, 0)
            if dead in self._children:
                self._drop_room(self._children.pop(dead))
                self._leased.discard(dead)
                self._tell(Exited(dead, os.waitstatus_to_exitcode(status)))
        for stray in _below() - self._children.keys() - self._own:  # it left its group, and its parent is dead
            with suppress(ProcessLookupError):
                os.kill(stray, signal.SIGKILL)

    def _end(self) -> None:
        """Give the children the moment they have when their callers leave, then end them."""
        patience = time.monotonic() + GRACE
        while self._children and time.monotonic() < patience:
            select.select([self._woken], [], [], patience - time.monotonic())
            self._reap()
        while self._children:
            for pid in self._children:
                _kill_group(pid)
            select.select([self._woken], [], [], 0.1)
            self._reap()

    def _tell(self, message: Told, *descriptors: int) -> None:
        with suppress(OSError):  # the engine is gone: its end is noticed where we listen
            socket.send_fds(self._control, [told(message)], descriptors)


def drop_rights(terms: Terms) -> None:
    """Be the user that agents are to be, for good."""
    if terms.user:
        user, group = terms.user
        os.setgroups([group])
        os.setgid(group)
        os.setuid(user)
        for path in (os.__file__, *sys.path):
            try:
                Path(path).stat()
            except PermissionError:
                raise RegistryError(
                    f"the user of RUNWIRE_ENGINE_RUN_AS may not read {path}: put Python, and the agents, where it can"
                ) from None
            except OSError:
                pass  # there is nothing to be read


def _wake(_: int, __: FrameType | None) -> None:
    """Take a signal: that it came is heard through the wake-up descriptor."""


def _dead() -> int | None:
    """Return a child that is dead and not yet reaped."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found else None


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # it may have died, or not lived long enough, to have a group
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _below() -> set[int]:
    """Return our children, whoever started them."""
    try:
        # Read without a buffer: a page that is written to here is copied, for the children that were forked before.
        with Path(f"/proc/self/task/{threading.get_native_id()}/children").open("rb", buffering=0) as children:
            return {int(pid) for pid in children.read().split()}
    except OSError:  # a kernel without this file
        return set()


def _files() -> list[str]:
    """Return the files that an author may be working on: what was imported, and is neither Python's nor installed."""
    libraries = (sys.prefix, sys.base_prefix)
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    ours = str(Path(__file__).parents[1])
    return sorted({file for file in files if file and not file.startswith(libraries) and not file.startswith(ours)})


def main() -> None:
    """Serve the engine that holds the other end of the socket."""
    wait_for.mend()
    with socket.socket(fileno=int(sys.argv[1])) as control:
        control.set_inheritable(False)  # what a module starts at its import must not hold it open
        Zygote(control, Terms.read(sys.argv[2]), engine=int(sys.argv[3])).serve()


if __name__ == "__main__":
    main()
