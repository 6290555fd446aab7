"""Namespaces: a network with nothing in it, and a view of the files that can be written to nowhere.

Made once, by a zygote, for all of its runs. Making them needs a user namespace, in which the zygote may do everything
until it forgoes its capabilities.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from engine_service.runtime.jail.kernel import LIBC, MOUNT_SETATTR, checked, prctl, syscall
from runwire.service.kernel import PR_SET_DUMPABLE

NEW_USER, NEW_NETWORK, NEW_MOUNTS, NEW_IPC = 0x10000000, 0x40000000, 0x00020000, 0x08000000
SET_FLAGS, UP = 0x8914, 0x41
"""What is asked of an interface, of which there is one: the loopback."""
PRIVATE, RECURSIVE = 1 << 18, 1 << 14
READ_ALONE, NO_SETUID, NO_DEVICES = 1, 2, 4
REMOUNT, BIND = 32, 4096
DETACH = 2
READ_ONLY, AT_RECURSIVE = 0x1, 0x8000
HERE = -100
NOBODY = 65534
"""Who root's runs are for the kernel's count of processes, which root's are not in."""


class _Attributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "users"))


def unshare(what: int) -> None:
    """Have namespaces of our own. Raises OSError."""
    checked(LIBC.unshare(what))


def enter() -> None:
    """Have a user namespace of our own, in which we are who we are, with a network and memory that nobody shares.

    Raises OSError.
    """
    user, group = os.geteuid(), os.getegid()
    users = f"0 0 1\n{NOBODY} {NOBODY} 1" if user == 0 else f"{user} {user} 1"
    prctl(PR_SET_DUMPABLE, 1)  # or, after a change of users, what /proc says of us is nobody's to write
    with _outside({"setgroups": "deny", "uid_map": users, "gid_map": f"{group} {group} 1"}):
        unshare(NEW_USER | NEW_NETWORK | NEW_IPC)


@contextmanager
def _outside(written: dict[str, str]) -> Generator[None]:
    """Let a process that stays outside write what is said of us in /proc, afterwards: only there is it root's to say.

    Raises OSError.
    """
    ours, theirs = socket.socketpair()
    home = Path(f"/proc/{os.getpid()}")
    helper = os.fork()
    if helper == 0:
        try:
            ours.close()
            if theirs.recv(1):
                for name, text in written.items():
                    (home / name).write_text(text)
            os._exit(0)
        except OSError as refused:
            os._exit(refused.errno or errno.EIO)
        finally:
            os._exit(errno.EIO)
    theirs.close()
    try:
        with ours:
            yield
            ours.send(b"!")
    finally:
        _, status = os.waitpid(helper, 0)
    if error := os.waitstatus_to_exitcode(status):
        raise OSError(error, f"who we are cannot be said: {os.strerror(error)}")


def be_counted() -> None:
    """Let root's processes be counted, and so limited, as others' are: by who they really are, not by what they may."""
    if os.geteuid() == 0:
        os.setresuid(NOBODY, 0, 0)


def raise_loopback() -> None:
    """Let processes of this network call each other. Raises OSError."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh14x", b"lo", UP))


def write_nowhere_but(path: str, size: int) -> None:
    """See all files as they are, and be able to change none of them, nor what is said of them.

    There is one folder of so many bytes, empty and our own, that can be written to. Raises OSError, and then nothing
    has changed.
    """
    unshare(NEW_MOUNTS)
    _mount(None, "/", None, PRIVATE | RECURSIVE, None)
    mount_memory(path, size)
    try:
        _attribute("/", _Attributes(set=READ_ONLY | NO_SETUID), AT_RECURSIVE)
    except OSError:
        unmount(path)
        raise
    _attribute(path, _Attributes(clear=READ_ONLY), 0)


def _attribute(path: str, about: _Attributes, how: int) -> None:
    where = ctypes.create_string_buffer(path.encode())
    what, size = ctypes.addressof(about), ctypes.sizeof(about)
    syscall(MOUNT_SETATTR, HERE, ctypes.addressof(where), how, what, size)


def mount_memory(path: str, size: int) -> None:
    """Put an empty folder of so many bytes there. Raises OSError."""
    options = f"size={size},nr_inodes={max(size // 4096, 16)},mode=700"
    _mount("tmpfs", path, "tmpfs", NO_SETUID | NO_DEVICES, options)


def mount_to_be_read(path: str) -> None:
    """Put a folder over itself, to be read alone. Whoever has it open already may write to it. Raises OSError."""
    _mount(path, path, None, BIND, None)
    let_be_read(path)


def let_be_read(path: str) -> None:
    """Let what is mounted there be read alone from now on. Raises OSError, where somebody has it open to write."""
    _mount(None, path, None, BIND | REMOUNT | READ_ALONE | NO_SETUID | NO_DEVICES, None)


def unmount(path: str) -> None:
    """Take away a folder that was put there, with all that is in it. Raises OSError."""
    checked(LIBC.umount2(path.encode(), DETACH))


def _mount(source: str | None, path: str, kind: str | None, flags: int, options: str | None) -> None:
    texts = [each and each.encode() for each in (source, path, kind)]
    checked(LIBC.mount(*texts, ctypes.c_ulong(flags), options and options.encode()))
