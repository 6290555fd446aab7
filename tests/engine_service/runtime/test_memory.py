"""What is done to memory before a fork. Each time in a process of its own: it cannot be undone."""

import subprocess
import sys
import textwrap

import pytest

from engine_service.runtime.memory import holes, immortal

IMMORTAL = sys.version_info >= (3, 12)
"""Whether this interpreter has counts that are never written."""

BEFORE = """
import gc, os, sys, weakref
from engine_service.runtime import memory
from engine_service.runtime.memory import holes, huge_pages, immortal

def private():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))

def forked(work):
    pid = os.fork()
    if pid == 0:
        before = private()
        work()
        print(private() - before, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""


def printed(script: str) -> list[str]:
    """Run a script in a process of its own, and return what it prints."""
    whole = BEFORE + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", whole], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


LOOKS = """
things = [[f"{number} of many", (number, str(number))] for number in range(100_000)]

def look():
    for one, two in things:
        held = [one, two, *two]
"""


@pytest.mark.parametrize("settled", [False, True])
def test_looking_at_objects_copies_nothing(*, settled: bool) -> None:
    """A child that looks at 400,000 objects has copies of their pages, but where references aren't counted."""
    [took] = printed(
        LOOKS + ("kept = memory.settle()\n" if settled else "gc.collect(); gc.freeze()\n") + "forked(look)"
    )
    copied = int(took) > 10_000_000
    assert copied == (not (settled and IMMORTAL))


def test_what_is_made_afterwards_ends_as_ever() -> None:
    """Only what was there is for good."""
    script = """
    class Thing: pass
    old = Thing()
    kept = memory.settle()
    new = Thing()
    seen = weakref.ref(new)
    del new
    gone = seen() is None
    gc.collect()
    print(gone, sys.getrefcount(old) > 1_000_000)
    """
    assert printed(script) == ["True", str(IMMORTAL)]


def test_what_has_an_end_is_left_alone() -> None:
    """A file is closed when nobody has it any more, a coroutine says that it was never awaited."""
    script = """
    file = open("/proc/self/status")
    number = file.fileno()
    kept = memory.settle()
    del file
    try:
        os.fstat(number)
        print("open")
    except OSError:
        print("closed")
    """
    assert "closed" in printed(script)


def test_an_interpreter_that_nobody_has_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """There nothing is done."""
    monkeypatch.setattr(sys, "version_info", (4, 0))
    assert immortal.make_immortal() == 0


def test_small_objects_lie_together() -> None:
    """A child that makes objects doesn't put them into others' pages, once the holes there are filled."""
    script = """
    many = [bytes(number % 400 + 20) for number in range(300_000)]
    del many[::7]
    gc.collect()
    def make():
        global new
        new = [bytes(150) for _ in range(4_000)]
    forked(make)
    kept = holes.filled()
    assert kept
    forked(make)
    """
    scattered, together = map(int, printed(script))
    assert together < scattered / 2


def test_large_objects_lie_together() -> None:
    """So it is with what the C library has in its heap."""
    script = """
    from engine_service.runtime.memory import heap
    many = [bytes(2_000) for _ in range(20_000)]
    del many[::7]
    def make():
        global new
        new = [bytes(1_200) for _ in range(500)]
    forked(make)
    heap.fill()
    forked(make)
    """
    scattered, together = map(int, printed(script))
    assert together < scattered * 0.7


def test_many_holes_are_filled() -> None:
    """However many a module left that read much and kept half."""
    script = """
    many = [bytes(100) for _ in range(400_000)]
    del many[::2]
    print(len(holes.filled()) > 200_000)
    """
    assert printed(script) == ["True"]


def test_filling_holes_ends_where_memory_is_managed_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives up, and keeps nothing."""
    monkeypatch.setenv("PYTHONMALLOC", "malloc")
    assert printed("print(holes.filled())") == ["[]"]


def test_a_pool_is_told_from_holes() -> None:
    """Only what lies in order, from a pool's beginning to its end."""
    pool = [holes.HEAD + 512 * number for number in range(31)]
    assert holes._has_a_pool([1, 2, *pool, 3], 512, 31)
    assert not holes._has_a_pool(pool[:30], 512, 31)
    assert not holes._has_a_pool([*pool[:5], 7, *pool[5:]], 512, 31)


def test_huge_pages_are_copied_in_small_ones() -> None:
    """A child that writes one byte has a small page more, whatever the kernel made of its parent's."""
    script = """
    data = bytearray(64 * 1024 * 1024)
    data[:] = bytes(1) * len(data)
    huge_pages.collapse()
    def write():
        data[len(data) // 2] = 1
    forked(write)
    """
    assert int(printed(script)[0]) < 500_000


def test_huge_pages_take_no_memory() -> None:
    """What a module reserved, and hardly uses, stays as it is."""
    script = """
    import mmap
    size = 64 * 1024 * 1024
    sparse = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)
    for place in range(0, size, 2 * 1024 * 1024):
        sparse[place] = 1
    before = private()
    huge_pages.collapse()
    print(private() - before)
    """
    assert int(printed(script)[0]) < 10_000_000
