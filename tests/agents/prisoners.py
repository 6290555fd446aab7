"""An agent that tries to get out, in the one way that it is told; and the same one outside of a jail."""

import array
import asyncio
import ctypes
import errno
import fcntl
import http.client
import json
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine_service import Agent, RunContext

LIBC = ctypes.CDLL(None, use_errno=True)
AT_IMPORT = os.environ["HOME"]
OPENED = Path(__file__).open(encoding="utf-8")  # noqa: SIM115 - what a module opens at its import, its runs have


def call(name: int | str, *arguments: Any) -> int:
    """Call the kernel, or the C library."""
    result = LIBC.syscall(name, *arguments) if isinstance(name, int) else getattr(LIBC, name)(*arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(result)


# Files


def read(path: str) -> str:
    return f"{len(Path(path).read_bytes())} bytes"


def listing(path: str) -> str:
    return " ".join(sorted(os.listdir(path)))


def write(path: str) -> str:
    Path(path).write_text("mine")
    return "written"


def make_folder(path: str) -> str:
    os.mkdir(path)
    return "made"


def remove(path: str) -> str:
    os.unlink(path)
    return "removed"


def change_mode(path: str) -> str:
    os.chmod(path, 0o777)
    return "changed"


def change_times(path: str) -> str:
    os.utime(path, (1, 1))
    return "changed"


def set_attribute(path: str) -> str:
    os.setxattr(path, "user.mine", b"1")
    return "set"


def truncate(path: str) -> str:
    os.truncate(path, 0)
    return "truncated"


def rename_out(path: str) -> str:
    Path("mine").write_text("mine")
    os.rename("mine", path)
    return "moved"


def link_in(path: str) -> str:
    os.link(path, "theirs")
    return Path("theirs").read_text()


def through_a_link(path: str) -> str:
    os.symlink(path, "link")
    return f"{len(Path('link').read_bytes())} bytes"


def write_through_a_link(path: str) -> str:
    os.symlink(path, "link-out")
    Path("link-out").write_text("mine")
    return "written"


def lease(path: str) -> str:
    """Hold up whoever opens a file."""
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    return "leased"


def change_all_rooms(_: str) -> str:
    os.chmod("..", 0)
    return "changed"


def change_zygotes_room(what: str) -> str:
    """Leave something for others, where all runs can read."""
    if what == "mode":
        os.chmod(AT_IMPORT, 0)
    elif what == "attribute":
        os.setxattr(AT_IMPORT, "user.mine", b"for others")
    else:
        Path(AT_IMPORT, "mine").write_text("for others")
    return "changed"


def above(_: str) -> str:
    return " ".join(sorted(os.listdir("..")))


def own_folder(_: str) -> str:
    before = os.listdir(".")
    Path("kept").write_text("x" * 1000)
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"more")
        return json.dumps([before, os.getcwd(), os.environ["HOME"], str(Path(file.name).parent)])


def inherited(_: str) -> str:
    return OPENED.readline()


# Network


def tcp(address: str) -> str:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=2) as connection:
        return f"connected to {connection.getpeername()[0]}"


def tcp6(address: str) -> str:
    with socket.socket(socket.AF_INET6) as connection:
        connection.settimeout(2)
        connection.connect(("::1", int(address.rpartition(":")[2])))
        return "connected"


def fast_open(address: str) -> str:
    host, _, port = address.rpartition(":")
    with socket.socket() as connection:
        connection.settimeout(2)
        connection.sendto(b"GET / HTTP/1.0\r\n\r\n", 0x20000000, (host, int(port)))
        return "sent"


def udp(address: str) -> str:
    host, _, port = address.rpartition(":")
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"a secret", (host, int(port)))
        return "sent"


def dns(name: str) -> str:
    return str(socket.getaddrinfo(name, 443)[0][4])


def listen(_: str) -> str:
    with socket.socket() as server:
        server.listen()
        return str(server.getsockname())


def bind(_: str) -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname())


def unix(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        return "connected"


def unix_by_a_pair(path: str) -> str:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        one.sendto(b"a secret", path)
        return "sent"


def unix_by_a_pair_of_streams(path: str) -> str:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    other.close()
    with one:
        one.connect(path)
        return "connected"


def abstract(name: str) -> str:
    return unix(f"\0{name}")


def family(numbers: str) -> str:
    with socket.socket(*map(int, numbers.split())) as found:
        return f"a socket: {found.family}"


def io_uring(_: str) -> str:
    parameters = ctypes.create_string_buffer(120)
    os.close(call(425, 4, parameters))
    return "a ring"


def old_calls(_: str) -> str:
    """Call the kernel by the numbers of another machine: 32 bits."""
    return str(call(0x40000000 | 41, socket.AF_UNIX, socket.SOCK_STREAM, 0))


# Processes


def environment(pid: str) -> str:
    return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace") or "empty"


def memory(pid: str) -> str:
    with open(f"/proc/{pid}/maps") as maps:
        start = int(maps.readline().partition("-")[0], 16)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as found:
        found.seek(start)
        return f"{len(found.read(16))} bytes"


def memory_by_call(pid: str) -> str:
    class Piece(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    buffer = ctypes.create_string_buffer(16)
    local, remote = Piece(ctypes.addressof(buffer), 16), Piece(id(None) & ~4095, 16)
    try:
        return f"{call('process_vm_readv', int(pid), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)} bytes"
    except OSError as error:
        if error.errno == errno.EFAULT:
            return "a look, though nothing was there"
        raise


def command_line(pid: str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")


def where_it_is(pid: str) -> str:
    return os.readlink(f"/proc/{pid}/cwd")


def send_signal(pid: str) -> str:
    os.kill(int(pid), signal.SIGTERM)
    return "sent"


def send_signal_by_descriptor(pid: str) -> str:
    descriptor = os.pidfd_open(int(pid))
    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    return "sent"


def signal_all(_: str) -> str:
    """Send it to all that may be sent to. Not to be tried outside of a jail."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(-1, signal.SIGTERM)
    return "sent"


def signal_by_a_file(pid: str) -> str:
    """Let the kernel send it, as of a file that can be read."""
    reading, writing = os.pipe()
    fcntl.fcntl(reading, fcntl.F_SETOWN, int(pid))
    fcntl.fcntl(reading, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC)
    os.write(writing, b"x")
    return "sent, perhaps"


def trace(pid: str) -> str:
    call("ptrace", 0x4206, int(pid), 0, 0)  # which, unlike others, does not stop it
    return "traced"


def take_descriptor(pid: str) -> str:
    return str(call(438, os.pidfd_open(int(pid)), 0, 0))


def limit(pid: str) -> str:
    resource.prlimit(int(pid), resource.RLIMIT_CORE, (0, 0))
    return "limited"


def slow_down(pid: str) -> str:
    os.setpriority(os.PRIO_PROCESS, int(pid), os.getpriority(os.PRIO_PROCESS, int(pid)))
    return "slowed"


def pin(pid: str) -> str:
    os.sched_setaffinity(int(pid), os.sched_getaffinity(int(pid)))
    return "pinned"


# Taking everything


def fork_without_end(_: str) -> str:
    children = 0
    try:
        while children < 2000:
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
            children += 1
    except OSError as error:
        return f"{children}, then {error.strerror}"
    return f"{children}"


def threads_without_end(_: str) -> str:
    done, threads = threading.Event(), 0
    try:
        while threads < 2000:
            threading.Thread(target=done.wait, daemon=True).start()
            threads += 1
    except RuntimeError as error:
        return f"{threads}, then {error}"
    finally:
        done.set()
    return f"{threads}"


def fill_memory(_: str) -> str:
    taken = list[bytearray]()
    try:
        while len(taken) < 4096:
            taken.append(bytearray(b"x" * 1024 * 1024))
    except MemoryError:
        return f"{len(taken)} MiB"
    return "all of it"


def fill_shared_memory(_: str) -> str:
    taken = list[mmap.mmap]()
    for _number in range(4096):
        taken.append(mmap.mmap(-1, 1024 * 1024))
        taken[-1].write(b"x" * 4096)
    return "4 GiB of it"


def fill_memory_as_stacks(_: str) -> str:
    mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100)
    return "1 GiB"


def fill_memory_in_files(_: str) -> str:
    descriptor = call("memfd_create", b"mine", 0)
    os.ftruncate(descriptor, 1 << 32)
    return "4 GiB"


def fill_shared_segments(_: str) -> str:
    return str(call("shmget", 0, 1 << 20, 0o1600))


def fill_disk(_: str) -> str:
    written, piece = 0, b"x" * 1024 * 1024
    with open("large", "wb", buffering=0) as file:
        try:
            while written < 256:
                written += file.write(piece) // len(piece)
        except OSError as error:
            return f"{written} MiB, then {error.strerror}"
    return f"{written} MiB"


def fill_disk_with_names(_: str) -> str:
    made = 0
    try:
        while made < 200_000:
            os.close(os.open(f"file-{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
    except OSError as error:
        return f"{made}, then {error.strerror}"
    return f"{made}"


def fill_descriptors(_: str) -> str:
    opened = list[int]()
    try:
        while len(opened) < 5000:
            opened.append(os.dup(0))
    except OSError as error:
        return f"{len(opened)}, then {error.strerror}"
    finally:
        for each in opened:
            os.close(each)
    return str(len(opened))


def raise_limits(_: str) -> str:
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2000, 2000))
    except ValueError as error:
        raise PermissionError(str(error)) from error
    return "raised"


def keyring(_: str) -> str:
    return str(call(248, b"user", b"mine", b"x", 1, -3))


# Getting out


def mount(_: str) -> str:
    os.makedirs("mine", exist_ok=True)
    call("mount", b"tmpfs", b"mine", b"tmpfs", 0, None)
    call("umount2", b"mine", 2)
    return "mounted"


def mount_anew(_: str) -> str:
    return str(call(430, b"tmpfs", 0))  # fsopen


def unshare(flag: str) -> str:
    child = os.fork()
    if child == 0:
        try:
            call("unshare", int(flag))
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise PermissionError("no namespace")
    return "a namespace"


def clone_a_namespace(flag: str) -> str:
    child = LIBC.syscall(56, int(flag) | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    if child < 0:
        raise OSError(ctypes.get_errno(), "no namespace")
    os.waitpid(child, 0)
    return "a namespace"


def setns(pid: str) -> str:
    call("setns", os.pidfd_open(int(pid)), 0x40000000)
    return "theirs"


def chroot(_: str) -> str:
    os.chroot(".")
    return "a root"


def setuid_program(path: str) -> str:
    return subprocess.run([path, "--help"], capture_output=True, check=True, timeout=10).stdout.decode()[:20]


def become(user: str) -> str:
    os.setresuid(int(user), int(user), int(user))
    return f"{os.getresuid()}"


def capabilities(_: str) -> str:
    header, held = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    call("capget", header, held)
    bounding = [number for number in range(41) if LIBC.prctl(23, number, 0, 0, 0) == 1]
    if not any(held) and not bounding and LIBC.prctl(39, 0, 0, 0, 0) == 1:
        raise PermissionError("none")
    return f"{list(held)} {bounding}"


def bpf(_: str) -> str:
    attributes = ctypes.create_string_buffer(array.array("I", [2, 4, 4, 1]).tobytes(), 128)
    return str(call(321, 0, attributes, 128))


def perf(_: str) -> str:
    attributes = ctypes.create_string_buffer(128)
    attributes[4] = b"\x80"
    attributes[0] = b"\x01"
    return str(call(298, attributes, 0, -1, -1, 0))


def userfaultfd(_: str) -> str:
    return str(call(323, 1))


def push_input(_: str) -> str:
    fcntl.ioctl(0, 0x5412, b"x")
    return "pushed"


def core(_: str) -> str:
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
        except ValueError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise PermissionError("no core")
    return "a core"


def undo_the_filter(_: str) -> str:
    """Set what cannot be unset: whether that changes anything is seen by what comes after."""
    LIBC.prctl(38, 0, 0, 0, 0)
    LIBC.prctl(22, 0, 0, 0, 0)
    return read("/etc/shadow" if os.geteuid() == 0 else "/etc/passwd")


# The broker


def ask_broker(told: str) -> str:
    """Ask a model server as the run that has a token; its own if none is given."""
    answer = _asked(json.loads(told or "{}"))
    return json.dumps([answer.status, dict(answer.getheaders()), answer.read().decode(errors="replace")])


def ask_often(told: str) -> str:
    """Ask until it is refused."""
    answers: list[tuple[int, str]] = []
    while not answers or answers[-1][0] == OK:
        answer = _asked(json.loads(told))
        answers.append((answer.status, answer.read().decode()))
    return json.dumps(answers)


def ask_and_hang_up(told: str) -> str:
    """Ask, and leave before there is an answer; until that is refused."""
    statuses: list[int] = []
    while len(statuses) < 8 and (not statuses or statuses[-1] < REFUSED):
        try:
            answer = _asked(json.loads(told), patience=0.5)
            statuses.append(answer.status)
        except TimeoutError:
            statuses.append(0)
    return json.dumps(statuses)


def ask_and_be_refused(told: str) -> str:
    """Ask again and again."""
    return json.dumps([_asked(json.loads(told)).status for _ in range(210)])


def ask_and_not_read(told: str) -> str:
    """Ask, and read nothing of the answer."""
    answer = _asked(json.loads(told))
    time.sleep(60)
    return str(answer.status)


def connect_often(_: str) -> str:
    """Connect to whoever carries calls, from several processes, and say nothing."""
    host, _, port = os.environ["OPENAI_BASE_URL"].removeprefix("http://").partition("/")[0].partition(":")
    for _number in range(4):
        if os.fork() == 0:
            held = [socket.create_connection((host, int(port))) for _each in range(200)]
            time.sleep(20)
            os._exit(len(held) & 1)
    time.sleep(20)
    return "held"


async def ask_around_a_pause(context: RunContext, told: str) -> str:
    """Ask, let somebody know, wait until nobody listens as before, and ask again."""
    about = json.loads(told)
    with _asked(about) as answer:
        statuses = [answer.status]
        answer.read()
        await context.report("asked", {})
    while len(statuses) < 3:
        try:
            answer = await asyncio.to_thread(_asked, about)
            answer.read()
            statuses.append(answer.status)
        except (OSError, http.client.HTTPException):  # whoever had the connection died
            await asyncio.sleep(0.05)
    return json.dumps(statuses)


OK, REFUSED = 200, 400


def _asked(about: dict[str, Any], patience: float = 20) -> http.client.HTTPResponse:
    host, _, rest = os.environ["OPENAI_BASE_URL"].removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=patience)
    headers = {
        "Authorization": f"Bearer {about.get('token', os.environ['OPENAI_API_KEY'])}",
        **about.get("headers", {}),
    }
    body = about.get("body", {"model": "m", "messages": [{"role": "user", "content": "words"}]})
    path = about.get("path", f"/{rest}/chat/completions")
    connection.request(
        about.get("method", "POST"), path, json.dumps(body), headers | {"Content-Type": "application/json"}
    )
    return connection.getresponse()


def search(needle: str) -> str:
    """Look for a text in all that can be read: files, the environment, descriptors, memory."""
    found = [name for name, value in os.environ.items() if needle in value]
    found += [arg for arg in sys.argv if needle in arg]
    seen = 0
    for root in ("/proc/self", "/run", "/etc", "/tmp", "/var", "/home", "/root", "/dev/shm", os.getcwd()):
        for folder, _, files in os.walk(root):
            for name in files:
                try:
                    with open(Path(folder, name), "rb") as file:
                        fcntl.fcntl(file, fcntl.F_SETFL, os.O_NONBLOCK)
                        data = file.read(1 << 20)
                except OSError:
                    continue
                seen += 1
                if needle.encode() in data:
                    found.append(str(Path(folder, name)))
    if not found:
        raise FileNotFoundError(f"not in {seen} files")
    return " ".join(found)


def stay(seconds: str) -> str:
    """Be there for a while, for a sibling to look at; and keep a secret."""
    Path("secret").write_text("a sibling's")
    time.sleep(float(seconds))
    return "done"


def who(_: str) -> str:
    return json.dumps([os.getpid(), os.getcwd(), os.getppid(), os.environ.get("OPENAI_API_KEY")])


def environ(_: str) -> str:
    return json.dumps(dict(os.environ))


ATTEMPTS: dict[str, Callable[[str], str]] = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == __name__
}


async def attempt(context: RunContext, input: str) -> str:
    name, _, argument = input.partition(" ")
    os.chdir(context.files)
    await context.report("pid", {"pid": os.getpid(), "folder": str(context.files), "parent": os.getppid()})
    try:
        got = await ask_around_a_pause(context, argument) if name == "ask_around_a_pause" else ATTEMPTS[name](argument)
    except (OSError, subprocess.SubprocessError) as error:
        return f"denied: {error}"
    return f"got: {got}"


class Prisoner(Agent):
    """Tries to get out of its jail."""

    isolation = "jail"

    async def run(self, context: RunContext, input: str) -> str:
        return await attempt(context, input)


class Free(Agent):
    """Tries the same where nothing holds it."""

    isolation = "process"

    async def run(self, context: RunContext, input: str) -> str:
        return await attempt(context, input)
