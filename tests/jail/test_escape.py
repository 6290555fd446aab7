"""An agent that tries to get out: each way by itself, in a jail, and outside of one, where most of them succeed."""

import os
from pathlib import Path

import psutil
import pytest

from tests.jail.conftest import KEY, House, Sibling, number, told, tried
from tests.support.clients import Caller
from tests.support.services import ROOT

FILES = [
    "read /etc/shadow",
    "read {out}/secret",
    f"read {ROOT}/README.md",
    "read {home}/.profile",
    "listing {home}",
    "listing {out}",
    "listing /proc",
    "listing /tmp",
    "write {out}/mine",
    "write /dev/shm/mine",
    f"write {ROOT}/tests/mine.py",
    "make_folder {out}/folder",
    "remove {out}/secret-to-remove",
    "change_mode {out}/secret",
    "change_times {out}/secret",
    "set_attribute {out}/secret",
    "truncate {out}/secret-to-truncate",
    "rename_out {out}/moved",
    "link_in {out}/secret",
    "through_a_link {out}/secret",
    "write_through_a_link {out}/through-a-link",
    "lease {out}/secret",
    "above",
]
ROOMS = ["change_all_rooms", "change_zygotes_room mode", "change_zygotes_room attribute", "change_zygotes_room file"]
"""Of what all runs of a zygote are in."""
NETWORK = [
    "tcp {engine}",
    "tcp {gateway}",
    "tcp {admin}",
    "tcp {model}",
    "tcp {broker}",
    "udp 127.0.0.1:53",
    "listen",
    "bind",
    "unix {out}/socket",
    "unix_by_a_pair {out}/datagrams",
    "abstract runwire-test",
    "family 1 1 0",  # a Unix socket
    "family 2 3 1",  # raw
    "family 10 1 0",  # IPv6
    "family 16 3 0",  # netlink
    "family 17 3 768",  # packets
    "family 40 1 0",  # vsock
    "family 2 1 262",  # TCP of many ways
]
NOWHERE = ["tcp 169.254.169.254:80", "tcp6 ::1:1", "dns example.org", "fast_open {engine}", "io_uring", "old_calls"]
"""What leads nowhere on some machines outside of a jail, too."""
OTHERS = [
    "environment {pid}",
    "memory {pid}",
    "memory_by_call {pid}",
    "command_line {pid}",
    "where_it_is {pid}",
    "trace {pid}",
    "take_descriptor {pid}",
    "limit {pid}",
    "slow_down {pid}",
    "pin {pid}",
]
KILLING = ["send_signal {pid}", "send_signal_by_descriptor {pid}"]
KERNEL = [
    "mount",
    "mount_anew",
    "unshare 268435456",
    "unshare 1073741824",
    "clone_a_namespace 268435456",
    "setns {pid}",
    "chroot",
    "setuid_program /usr/bin/su",
    "capabilities",
    "keyring",
    "fill_shared_memory",
    "fill_memory_as_stacks",
    "fill_memory_in_files",
    "fill_shared_segments",
    "raise_limits",
]
KERNEL_NOT_HERE = ["bpf", "perf", "userfaultfd", "push_input", "core", "become 0", "undo_the_filter"]
"""What some machines forbid, or what stands for nothing, outside of a jail, too."""


def filled(what: str, house: House, pid: int | None = None) -> str:
    """Say what is to be tried, with what there is to reach for."""
    host = house.engine
    ours = {
        "out": house.folder,
        "home": Path.home(),
        "engine": host.address,
        "gateway": house.gateway.address,
        "admin": host.admin,
        "model": f"127.0.0.1:{house.server.port}",
        "broker": broker_address(house),
        "pid": house.victim if pid is None else pid,
    }
    return what.format(**ours)


def broker_address(house: House) -> str:
    """Return where the broker listens for runs that are in no jail."""
    listening = (each for each in psutil.Process(house.broker).net_connections() if each.status == "LISTEN")
    addresses = [each.laddr for each in listening]
    return f"127.0.0.1:{addresses[0].port}"


@pytest.fixture(autouse=True)
def there_to_be_taken(house: House) -> None:
    """Put there again what succeeded outside of the jail."""
    for name in ("secret-to-remove", "secret-to-truncate", "secret"):
        (house.folder / name).write_text("a secret of the engine's")
    for name in ("moved", "mine", "through-a-link"):
        (house.folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize("what", [*FILES, *ROOMS, *NETWORK, *NOWHERE, *KERNEL, *KERNEL_NOT_HERE])
async def test_in_a_jail(house: House, alice: Caller, what: str) -> None:
    """It does not work."""
    assert (await tried(alice, filled(what, house))).startswith("denied: ")


FREE = [
    what
    for what in (*FILES, *NETWORK, *KERNEL)
    if not what.startswith(("write /dev/shm", "unix", "abstract", "setns", "above", "read {home}"))
]


@pytest.mark.skipif(os.geteuid() != 0, reason="an engine that isn't root's can do less, jail or no jail")
@pytest.mark.parametrize("what", [each for each in FREE if "tests/mine.py" not in each])
async def test_outside(house: House, alice: Caller, what: str) -> None:
    """The same does, where nothing holds it: what is tried is something."""
    assert (await tried(alice, filled(what, house), "free")).startswith("got: ")


@pytest.mark.parametrize("whose", ["engine", "zygote", "broker", "keeper", "sibling", "victim"])
@pytest.mark.parametrize("what", [*OTHERS, *KILLING])
async def test_other_processes(house: House, alice: Caller, sibling: Sibling, whose: str, what: str) -> None:
    """Nobody's environment, memory or command line can be read; nobody can be traced, limited, slowed or ended."""
    zygotes = house.zygotes
    pids = {
        "engine": [house.engine.pid],
        "zygote": zygotes,
        "broker": [house.broker],
        "keeper": [_keeper(house)],
        "sibling": [sibling.pid],
        "victim": [house.victim],
    }
    assert pids[whose]
    for pid in pids[whose]:
        assert (await tried(alice, filled(what, house, pid))).startswith("denied: ")
        assert psutil.pid_exists(pid)


def _keeper(house: House) -> int:
    """Return who makes the rooms: the first that the jail's zygote has forked."""
    ours = Path(f"/proc/{house.engine.pid}/ns/net").readlink()
    [jail] = [pid for pid in house.zygotes if Path(f"/proc/{pid}/ns/net").readlink() != ours]
    first, *_ = Path(f"/proc/{jail}/task/{jail}/children").read_text().split()
    return int(first)


@pytest.mark.parametrize("what", OTHERS)
async def test_other_processes_outside(house: House, alice: Caller, what: str) -> None:
    """The same works on a process of one's user, where nothing holds it."""
    assert (await tried(alice, filled(what, house), "free")).startswith("got: ")


@pytest.mark.parametrize("what", ["signal_by_a_file {pid}", "signal_all"])
async def test_signals_that_go_nowhere(house: House, alice: Caller, sibling: Sibling, what: str) -> None:
    """What cannot be refused reaches nobody: all others live, and a sibling's run goes on."""
    await tried(alice, filled(what, house, sibling.pid))
    for pid in (house.engine.pid, house.broker, house.victim, sibling.pid, *house.zygotes):
        assert psutil.pid_exists(pid)
        assert psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("what", ["read {0}/secret", "listing {0}", "write {0}/mine", "through_a_link {0}/secret"])
async def test_another_runs_folder(alice: Caller, sibling: Sibling, what: str) -> None:
    """What a run keeps is not there for others."""
    assert (await tried(alice, what.format(sibling.folder))).startswith("denied: ")


async def test_its_own_folder(alice: Caller) -> None:
    """A run has a folder of its own, empty at first, where it is, which is its home, and where temporary files go."""
    before, here, home, temporary = told(await tried(alice, "own_folder"))
    assert before == []
    assert here == home == temporary
    again = told(await tried(alice, "own_folder"))
    assert again[0] == []
    assert again[1] != here


async def test_what_it_has(house: House, alice: Caller) -> None:
    """Its environment is its own, and what its modules opened at their import is there, and was told at boot."""
    found = told(await tried(alice, "environ"))
    plain = {name for name in found if not name.startswith("LC_")}
    brokers = {f"OPENAI_{name}" for name in ("BASE_URL", "API_BASE", "API_KEY")}
    assert plain <= {"PATH", "HOME", "TMPDIR", "LANG", "LANGUAGE", "TZ", *brokers}
    assert (await tried(alice, "inherited")).startswith("got: ")
    opened = house.engine.wait_for(lambda record: record["event"].startswith("agents' modules opened"))
    assert any("prisoners.py" in each for each in opened["opened"])
    closed = house.engine.wait_for(lambda record: record["event"] == "the jail is closed")
    assert closed["holds"][:6] == ["network", "files", "syscalls", "environment", "capabilities", "disk"]


async def test_no_key_can_be_found(house: House, alice: Caller) -> None:
    """The key of a model server is in nothing that a run can read. Outside, it is in a file."""
    assert (await tried(alice, f"search {KEY}")).startswith("denied: ")
    assert (house.folder / "openai.key").read_text() == KEY


@pytest.mark.parametrize(
    ("what", "most"),
    [
        ("fork_without_end", 256),
        ("threads_without_end", 256),
        ("fill_memory", 512),
        ("fill_disk", 16),
        ("fill_disk_with_names", 4096),
        ("fill_descriptors", 256),
    ],
)
async def test_taking_everything(alice: Caller, bob: Caller, what: str, most: int) -> None:
    """A run gets so much, and no more, and nobody else notices."""
    assert number(await tried(alice, what)) <= most
    assert told(await tried(bob, "own_folder"))[0] == []
