"""A zygote whose modules are hostile: what it tells the engine is believed as far as the kernel says the same."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import psutil
import pytest

from tests.support.clients import caller
from tests.support.services import engine as start_engine
from tests.support.services import until

pytestmark = pytest.mark.force

AGENT = """
from engine_service import Agent

class Hostile(Agent):
    isolation = "jail"

    async def run(self, context, input):
        return input
"""
AT_IMPORT = """
import json, os, socket, sys
control = socket.socket(fileno=os.dup(int(sys.argv[1])))
def tell(name, *descriptors, **fields):
    socket.send_fds(control, [json.dumps([name, fields]).encode()], descriptors)
"""
INSTEAD = """
import os, sys
zygote = sys.modules["__main__"]
from engine_service.wire import Exited, Forked
tell, told = zygote.Zygote._tell, 0
def ended():
    if (pid := os.fork()) == 0:
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    os.waitpid(pid, 0)
    return pidfd
def lie(self, message, *descriptors):
    global told
    told += isinstance(message, {kind})
    if told > {honest} and isinstance(message, {kind}):
        message, descriptors = {lies}
    tell(self, message, *descriptors)
zygote.Zygote._tell = lie
"""
HONEST = 6
"""Births, or ends, that it tells as they are: the boot is over by then."""

LIES_AT_IMPORT = {
    "a folder of the engine's": 'tell("Exited", pid="{folder}", status=0)',
    "a folder above": 'tell("Exited", pid="../..", status=0)',
    "somebody else's process": 'tell("Forked", os.open("/dev/null", 0), pid={victim})',
    "no descriptor": 'tell("Forked", pid={victim})',
    "no message": 'control.send(b"nonsense")',
    "no such message": 'tell("System", command="rm")',
    "a wrong field": 'tell("Ready", threads="many", exits=0, left=[], opened=[])',
    "too much": 'for n in range(20_000): tell("Watched", os.open("/dev/null", 0), file=str(n))',
    "a jail twice": 'tell("Jailed", os.open("/dev/null", 0), holds=[], missing={{}})',
}
LIES_AFTERWARDS = {
    "somebody else's number": "Forked({victim}), descriptors",
    "no process at all": 'Forked(message.pid), (os.open("/dev/null", 0),)',
    "another's descriptor": "Forked(message.pid), (os.pidfd_open(os.getpid()),)",
    "somebody's who has ended": "Forked({victim}), (ended(),)",
    "the first process": "Forked(1), descriptors",
    "an end that isn't": "Exited(next(iter(self._children), 0), 0), ()",
}


@pytest.fixture
def victim() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def spared(folder: Path, victim: int) -> None:
    """See that nobody and nothing was harmed."""
    assert (folder / "precious").read_text() == "precious"
    assert psutil.Process(victim).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("lie", LIES_AT_IMPORT)
def test_lies_at_the_import(tmp_path: Path, victim: int, lie: str) -> None:
    """The boot is over, and nobody is harmed."""
    (tmp_path / "precious").write_text("precious")
    lies = LIES_AT_IMPORT[lie].format(folder=tmp_path, victim=victim)
    (tmp_path / "hostile.py").write_text(f"{AT_IMPORT}{lies}\n{AGENT}")
    with start_engine(agents="hostile", ISOLATION="jail", DEMO_AGENTS="false", folder=str(tmp_path)) as service:
        assert service.wait() == 2
    spared(tmp_path, victim)


@pytest.mark.parametrize("lie", LIES_AFTERWARDS)
async def test_lies_afterwards(tmp_path: Path, victim: int, lie: str) -> None:
    """The zygote is killed as soon as it lies: nobody else is harmed, and no run waits for its end."""
    (tmp_path / "precious").write_text("precious")
    lies = LIES_AFTERWARDS[lie].format(victim=victim)
    kind = "Exited" if lies.startswith("Exited") else "Forked"
    (tmp_path / "hostile.py").write_text(INSTEAD.format(lies=lies, kind=kind, honest=HONEST) + AGENT)
    with start_engine(agents="hostile", ISOLATION="jail", DEMO_AGENTS="false", folder=str(tmp_path)) as service:
        assert service.address
        async with caller(service.address) as alice:
            for _ in range(12):
                try:
                    await alice.run("hostile", "words")
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.UNAVAILABLE
            await until(lambda: any("not to be trusted" in str(record.get("event")) for record in service.records))
    spared(tmp_path, victim)
