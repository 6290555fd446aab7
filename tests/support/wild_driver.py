"""A driver on a cluster that says whatever its engine's test wants: the address that it is to connect to is how."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LINE = "😀" * 16_384

LONG = "x" * 100_000


def told(kind: str, **fields: Any) -> bytes:
    return json.dumps([kind, fields]).encode()


ANSWERS: dict[str, Callable[[int], list[bytes]]] = {
    "surrogate": lambda number: [told("Ended", number=number, how="\ud800")],
    "long": lambda number: [told("Ended", number=number, how=LONG)],
    "flood": lambda number: (
        [told("Logged", number=number, level="info", event=LONG, text="")] * 300
        + [told("Ended", number=number, how="exit status 3")]
    ),
    "level": lambda number: [told("Logged", number=number, level="bind", event="x", text="")],
    "number": lambda number: [told("Ended", number=number + 7, how="x"), told("Ended", number=number, how="y")],
    "nonsense": lambda _: [b"\xff\xfe"],
    "unexpected": lambda _: [told("Connected", address="here", nodes=1)],
    "too long": lambda number: [told("Logged", number=number, level="info", event="x", text=LINE)],
}
"""What it says to a run that begins, each by its name."""


def begin(how: str) -> None:
    """Be a successor that does not come, if that is what is wanted."""
    kind, _, marker = how.partition("|")
    if marker and Path(marker).exists():
        if kind == "talks in boot":
            engine.send(b"{}")
            time.sleep(60)
        time.sleep(0.5)
        sys.exit()
    if marker:
        Path(marker).touch()
    engine.send(told("Connected", address="here", nodes=1))


def answer(how: str, number: int) -> None:
    """Do to a run that begins what is wanted."""
    if how == "lets go":
        engine.shutdown(socket.SHUT_RDWR)
        time.sleep(60)
    if how not in ANSWERS:
        os.kill(os.getpid(), signal.SIGKILL)
    for each in ANSWERS[how](number):
        engine.send(each)


def main() -> None:
    how = json.loads(engine.recv(1 << 17))[1]["address"]
    begin(how)
    held: list[socket.socket] = []  # as one does that carries runs
    while True:
        data, descriptors, *_ = socket.recv_fds(engine, 1 << 17, 2)
        if not data:
            return
        name, fields = json.loads(data)
        if name == "Rehearse":
            engine.send(told("Rehearsed", number=fields["number"], node="here", error=""))
        elif name == "Begin":
            held.append(socket.socket(fileno=descriptors[0]))
            held[-1].recv(1 << 16)  # it has begun
            answer(how, fields["number"])


if __name__ == "__main__":
    engine = socket.socket(fileno=int(sys.argv[1]))
    main()
