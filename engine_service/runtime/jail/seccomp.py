"""Which of the kernel's calls a jail's processes may make, and with what.

The list is of what is allowed. It is compiled for the small machine that the kernel has before each call; most
calls are decided by their number alone, which the kernel remembers.
"""

import ctypes
import errno
import os
import struct
from typing import NamedTuple

from engine_service.runtime.jail.kernel import syscall
from engine_service.runtime.jail.syscalls import ARCHITECTURES, NEWEST, Architecture

FILES = """
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 open openat openat2 creat close close_range
lseek stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2 getdents getdents64 readlink
readlinkat getcwd chdir fchdir mkdir mkdirat mknod mknodat rmdir unlink unlinkat rename renameat renameat2 link linkat
symlink symlinkat truncate ftruncate fallocate fsync fdatasync sync_file_range fadvise64 readahead copy_file_range
sendfile splice tee flock dup dup2 dup3 pipe pipe2 umask getxattr lgetxattr fgetxattr listxattr llistxattr
flistxattr
"""
ATTRIBUTES = """
chmod fchmod fchmodat fchmodat2 chown lchown fchown fchownat utime utimes futimesat utimensat setxattr lsetxattr
fsetxattr removexattr lremovexattr fremovexattr
"""
"""Landlock knows nothing of these: they are allowed where everything else is mounted to be read alone."""
WAITING = """
poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2
timerfd_create timerfd_settime timerfd_gettime signalfd signalfd4 futex futex_waitv futex_wake futex_wait futex_requeue
alarm setitimer getitimer nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time timer_create
timer_settime timer_gettime timer_getoverrun timer_delete pause restart_syscall
"""
MEMORY = """
munmap mremap mprotect brk madvise mincore msync mlock mlock2 munlock membarrier get_mempolicy set_mempolicy mbind
pkey_alloc pkey_free pkey_mprotect map_shadow_stack mseal
"""
PROCESSES = """
fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid getpgrp setpgid getsid setsid
set_tid_address set_robust_list get_robust_list rseq arch_prctl prctl getrlimit setrlimit getrusage times uname sysinfo
getcpu sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_getattr sched_get_priority_max
sched_get_priority_min sched_rr_get_interval getpriority ioprio_get capget capset pidfd_open getuid geteuid getgid
getegid getresuid getresgid getgroups rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait
rt_sigsuspend sigaltstack getrandom seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
"""
SIGNALS = "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal"
"""Only where Landlock keeps them among a run's own processes."""
NETWORK = """
connect getsockname getpeername getsockopt setsockopt shutdown recvfrom recvmsg recvmmsg
"""
"""No `bind`, `listen` or `accept`: nobody calls a run."""

NEW_NAMESPACES = 0x7E020000
NEW_USER = 0x10000000
CLONE_PARENT = 0x8000
SHARED_ANONYMOUS, GROWS_DOWN = 0x01 | 0x20, 0x100
"""Memory that a process shares, or has as a stack, is not counted as its data."""
FAST_OPEN = 0x20000000
"""Sends without `connect`, which is where Landlock looks."""
TO_OTHERS = (0x5412, 0x541C, 0x8901, 0x8902)
"""Pushes input, talks to the console, and has signals sent to others (FIOSETOWN, SIOCSPGRP)."""
ABOUT_DESCRIPTORS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1031, 1032)
"""Copies, flags, locks, and the size of pipes."""
INET, UNIX = 2, 1
STREAM, PACKETS = 1, 5
KIND = 0xF


class Is(NamedTuple):
    """What an argument of a call must be, of its low 32 bits, which is all that the kernel looks at."""

    argument: int
    value: int
    mask: int = 0xFFFFFFFF
    otherwise: bool = False
    """Whether it must be anything else."""


Call = tuple[Is, ...]
"""What must be so of a call's arguments, all of it."""

Rules = dict[str, tuple[Call, ...]]
"""Which calls are allowed, and how: in one of these ways, or anyhow."""
ANYHOW: tuple[Call, ...] = ()

WITH: Rules = {
    # TCP, and nothing else: no Unix socket by its path, which crosses namespaces, no netlink, packets, or vsock.
    "socket": ((Is(0, INET), Is(1, STREAM, KIND), Is(2, 0)), (Is(0, INET), Is(1, STREAM, KIND), Is(2, 6))),
    # Not of datagrams: these can be sent to any path, connected or not.
    "socketpair": ((Is(0, UNIX), Is(1, STREAM, KIND)), (Is(0, UNIX), Is(1, PACKETS, KIND))),
    "sendto": ((Is(3, 0, FAST_OPEN),),),
    "sendmsg": ((Is(2, 0, FAST_OPEN),),),
    "sendmmsg": ((Is(3, 0, FAST_OPEN),),),
    "clone": ((Is(0, 0, NEW_NAMESPACES | CLONE_PARENT),),),
    "mmap": ((Is(3, SHARED_ANONYMOUS, SHARED_ANONYMOUS, otherwise=True), Is(3, 0, GROWS_DOWN)),),
    "ioctl": (tuple(Is(1, each, otherwise=True) for each in TO_OTHERS),),
    # Neither signals to whomever, nor leases, which hold up whoever opens the file.
    "fcntl": tuple((Is(1, each),) for each in ABOUT_DESCRIPTORS),
    "personality": ((Is(0, 0),), (Is(0, 0xFFFFFFFF),)),
    # Of oneself alone: others of the same user could be slowed down, or limited to death.
    "prlimit64": ((Is(0, 0),),),
    "setpriority": ((Is(0, 0), Is(1, 0)),),
    **{f"sched_set{what}": ((Is(0, 0),),) for what in ("affinity", "scheduler", "param", "attr")},
}
REFUSED = {"socket": errno.EAFNOSUPPORT, "clone3": errno.ENOSYS}
"""With what a call is refused, where libraries then do the right thing; EPERM says enough otherwise."""

EVERYTHING = {*f"{FILES}{ATTRIBUTES}{WAITING}{MEMORY}{PROCESSES}{SIGNALS} {NETWORK}".split(), *WITH}
"""All calls that there are for somebody in a jail."""

LOAD, JUMP_EQUAL, JUMP_OVER, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
SET_FILTER = 1

Program = list[tuple[int, int, int, int]]


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


class Filter:
    """A program, as the kernel takes it."""

    def __init__(self, program: Program) -> None:
        self._struct = _Filter(len(program), b"".join(struct.pack("=HBBI", *line) for line in program))
        self._number = _architecture().numbers["seccomp"]

    def install(self) -> None:
        """Put this process, and all that it will start, under it, for good. Raises OSError."""
        syscall(self._number, SET_FILTER, 0, ctypes.addressof(self._struct))


def allow(*, attributes: bool, signals: bool) -> None:
    """Allow the calls above, and making a user namespace, which each run does for itself and then no more."""
    without = ("" if attributes else ATTRIBUTES) + ("" if signals else SIGNALS)
    rules: Rules = dict.fromkeys(EVERYTHING - {*without.split()}, ANYHOW) | WITH | {"unshare": ((Is(0, NEW_USER),),)}
    Filter(compiled(_architecture(), rules)).install()


def without_namespaces() -> "Filter":
    """Return what allows all that was allowed before, but for a user namespace."""
    number = _architecture().numbers["unshare"]
    refused, allowed = (RETURN, 0, 0, ERRNO | errno.EPERM), (RETURN, 0, 0, ALLOW)
    return Filter([(LOAD, 0, 0, NUMBER), (JUMP_EQUAL, 0, 1, number), refused, allowed])


def compiled(machine: Architecture, rules: Rules) -> Program:
    """Write a program that allows these calls, and says to those that are younger than we are that there are none."""
    program: Program = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, machine.audit),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (JUMP_OVER, 0, 1, NEWEST + 1),
        (RETURN, 0, 0, ERRNO | errno.ENOSYS),
    ]
    for name, number in sorted(machine.numbers.items(), key=lambda item: item[1]):
        if name in REFUSED and name not in rules:
            program += _case(number, [(RETURN, 0, 0, ERRNO | REFUSED[name])])
        elif name in rules:
            program += _case(number, _body(rules[name], REFUSED.get(name, errno.EPERM)))
    return [*program, (RETURN, 0, 0, ERRNO | errno.EPERM)]


def _case(number: int, body: Program) -> Program:
    return [(JUMP_EQUAL, 0, len(body), number), *body]


def _body(calls: tuple[Call, ...], refused: int) -> Program:
    """Allow a call that is like one of these; any, where none is named."""
    if not calls:
        return [(RETURN, 0, 0, ALLOW)]
    program: Program = []
    for call in calls:
        program += _like(call)
    return [*program, (RETURN, 0, 0, ERRNO | refused)]


def _like(call: Call) -> Program:
    """Allow a call whose arguments are so; with what is behind us if they aren't."""
    program: Program = [(RETURN, 0, 0, ALLOW)]
    for is_ in reversed(call):
        beyond = len(program)
        yes, no = (beyond, 0) if is_.otherwise else (0, beyond)
        look: Program = [
            (LOAD, 0, 0, ARGUMENTS + 8 * is_.argument),
            (AND, 0, 0, is_.mask),
            (JUMP_EQUAL, yes, no, is_.value),
        ]
        program = look + program
    return program


def _architecture() -> Architecture:
    try:
        return ARCHITECTURES[os.uname().machine]
    except KeyError:
        raise OSError(
            errno.ENOSYS, f"the numbers of the kernel's calls are not known for {os.uname().machine}"
        ) from None
