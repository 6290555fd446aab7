"""Sockets that are open, and how what must not be used any more is taken from whoever holds it."""

import os
import socket
from contextlib import suppress
from pathlib import Path


def opened() -> dict[int, str]:
    """Return what this process has open: descriptors, and what the kernel calls each."""
    found: dict[int, str] = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor that looks is gone by now
            found[int(entry.name)] = str(entry.readlink())
    return found


def sockets() -> dict[int, str]:
    """Return those that are sockets."""
    return {descriptor: what for descriptor, what in opened().items() if what.startswith("socket:")}


def close(descriptor: int) -> str:
    """Let a socket lead nowhere, and say where it led.

    Its number stays taken: whoever holds it finds that the other side has hung up, and closes no other's by mistake.
    """
    where = _peer(descriptor)
    ours, gone = socket.socketpair()
    gone.close()
    with ours:
        os.dup2(ours.fileno(), descriptor, inheritable=False)
    return where


def _peer(descriptor: int) -> str:
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        try:
            peer: object = connection.getpeername()
        except OSError:
            return "a socket that is connected to nobody"
    match peer:
        case (str(host), int(port), *_):
            return f"a connection to {host}:{port}"
        case _:
            return "a connection"
