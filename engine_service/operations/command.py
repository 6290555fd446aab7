"""`engine-service ps` and `engine-service stop`: what operators do in a terminal. Engines are asked over gRPC."""

import argparse
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from runwire.operations.v1 import operations_pb2 as pb
from runwire.operations.v1.operations_pb2_grpc import OperationsServiceStub

ADMIN = "127.0.0.1:9466"
TOKEN = "RUNWIRE_OPERATOR_TOKEN"  # noqa: S105 - a name
DEVELOPERS = "dev:operator"
PATIENCE = 10.0
"""Seconds that an engine has to answer."""
EVERY = 1.0
"""Seconds between two looks."""
WIDEST = 40
"""Characters of what a user is called."""
HOME, CLEAR = "\x1b[H", "\x1b[J"
MINUTE, HOUR = 60, 3600
MEBIBYTE = 1024 * 1024


class Column(NamedTuple):
    """A column of the table: its head, and whether it holds numbers."""

    head: str
    is_number: bool = False


COLUMNS = (
    Column("RUN"),
    Column("USER"),
    Column("AGENT"),
    Column("FOR", is_number=True),
    Column("EVENTS", is_number=True),
    Column("MEMORY", is_number=True),
    Column("PROCESSOR", is_number=True),
    Column("WAITS FOR"),
    Column("ENGINE"),
)


def main(arguments: Sequence[str]) -> int:
    """Do as the command line says, and return the exit status."""
    said = _parser().parse_args(arguments)
    try:
        calls = [Engine(address.strip(), said) for address in said.admin.split(",")]
        return _stop(calls, said) if said.command == "stop" else _show(calls, said)
    except OSError as error:
        sys.stderr.write(f"engine-service: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 0


class Engine:
    """One that is asked."""

    def __init__(self, address: str, said: argparse.Namespace) -> None:
        credentials = grpc.ssl_channel_credentials(said.ca.read_bytes()) if said.ca else None
        channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
        token = said.token_file.read_text().strip() if said.token_file else os.environ.get(TOKEN, DEVELOPERS)
        self._address = address
        self._stub: Any = OperationsServiceStub(channel)
        self._options = {"metadata": (("authorization", f"Bearer {token}"),), "timeout": PATIENCE}

    def ask(self, method: str, request: Any) -> Any:
        """Ask it something; None, and a line that says why, where it does not answer."""
        try:
            return getattr(self._stub, method)(request, **self._options)
        except grpc.RpcError as error:
            sys.stderr.write(f"engine-service: {self._address}: {_sentence(error)}\n")
            return None


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--admin", default=ADMIN, help="ADMIN_LISTEN of engines, comma-separated")
    common.add_argument("--token-file", type=Path, help=f"file with an operator's token; or else {TOKEN} has it")
    common.add_argument("--ca", type=Path, help="PEM file with who signs the engines' certificates")
    common.add_argument("--user", default="", help="the runs of this user")
    common.add_argument("--agent", default="", help="the runs of this agent")
    parser = argparse.ArgumentParser("engine-service")
    commands = parser.add_subparsers(dest="command", required=True)
    ps = commands.add_parser("ps", parents=[common], help="show what runs, for as long as it is looked at")
    ps.add_argument("--once", action="store_true", help="show it once")
    stop = commands.add_parser("stop", parents=[common], help="stop a run, a user's, or an agent's")
    stop.add_argument("run", nargs="?", default="", help="this one")
    return parser


def _show(engines: Sequence[Engine], said: argparse.Namespace) -> int:
    request = pb.ListRunsRequest(user_id=said.user, agent=said.agent)
    updates = sys.stdout.isatty() and not said.once
    interrupted = threading.Event()
    if updates:  # what interrupts a call of gRPC may get lost there
        signal.signal(signal.SIGINT, lambda _number, _frame: interrupted.set())
    while True:
        answers = [engine.ask("ListRuns", request) for engine in engines]
        listed = [answer for answer in answers if answer is not None]
        if not updates:
            sys.stdout.write("\n".join(table(listed)) + "\n" if listed else "")
            return int(len(listed) < len(answers))
        columns, rows = shutil.get_terminal_size()
        lines = [line[:columns] for line in table(listed)[: rows - 1]]
        sys.stdout.write(f"{HOME}{CLEAR}" + "\n".join(lines) + "\n")
        sys.stdout.flush()
        if interrupted.wait(EVERY):
            return 0


def _stop(engines: Sequence[Engine], said: argparse.Namespace) -> int:
    which = {"run_id": said.run, "user_id": said.user, "agent": said.agent}
    named = {name: value for name, value in which.items() if value}
    if len(named) != 1:
        sys.stderr.write("engine-service stop: name a run, or --user, or --agent\n")
        return 2
    answers = [engine.ask("StopRuns", pb.StopRunsRequest(**named)) for engine in engines]
    known = [answer for answer in answers if answer is not None]
    stopped = [run for answer in known for run in answer.run_ids]
    uncertain = [run for answer in known for run in answer.uncertain]
    sys.stdout.write("".join(f"{run}\n" for run in stopped))
    for run in uncertain:
        sys.stderr.write(f"engine-service stop: {run} may go on at another engine: try again\n")
    if known and not (stopped or uncertain):
        sys.stderr.write("engine-service stop: there is no such run\n")
    return int(not stopped or bool(uncertain) or len(known) < len(answers))


def table(answers: Sequence[pb.ListRunsResponse]) -> list[str]:
    """Write runs as a table."""
    rows = [_row(run, answer.engine) for answer in answers for run in answer.runs]
    if not rows:
        return ["nothing runs"]
    cells = [[column.head for column in COLUMNS], *rows]
    widths = [max(len(row[place]) for row in cells) for place in range(len(COLUMNS))]
    return ["  ".join(map(_padded, row, widths, COLUMNS)).rstrip() for row in cells]


def _row(run: pb.RunStatus, engine: str) -> list[str]:
    taken = run.processor_time.ToTimedelta().total_seconds()
    return [
        run.run_id,
        _shown(f"{run.user_id} by {run.service}" if run.service else run.user_id),
        run.agent,
        _lasting(time.time() - run.started.ToNanoseconds() / 1e9),
        str(run.last_seq),
        f"{run.memory_bytes / MEBIBYTE:.1f}M" if run.memory_bytes else "",
        f"{taken:.2f}s" if run.HasField("processor_time") else "",
        _waiting(run),
        engine,
    ]


def _shown(text: str) -> str:
    """Return a text without what would mean something to a terminal, and no longer than leaves room for others."""
    plain = "".join(each if each.isprintable() else "?" for each in text)
    return plain if len(plain) <= WIDEST else f"{plain[: WIDEST - 1]}…"


def _waiting(run: pb.RunStatus) -> str:
    if run.waiting == pb.WAITING_USER:
        return _shown(f"its user, to approve {run.tool}" if run.tool else "its user")
    if run.waiting == pb.WAITING_READER:
        return "its reader"
    return "" if run.is_read else "nobody reads it"


def _lasting(seconds: float) -> str:
    whole = max(int(seconds), 0)
    if whole < MINUTE:
        return f"{whole}s"
    return (
        f"{whole // MINUTE}m{whole % MINUTE:02}s" if whole < HOUR else f"{whole // HOUR}h{whole % HOUR // MINUTE:02}m"
    )


def _padded(cell: str, width: int, column: Column) -> str:
    return cell.rjust(width) if column.is_number else cell.ljust(width)


def _sentence(error: Any) -> str:
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"no engine answers there: {details}"
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return f"{details} Set {TOKEN}, or --token-file, to an operator's token."
    return str(details)
