"""The program that decides about calls of the kernel, run here by a machine as the kernel's."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_service.runtime.jail import seccomp
from engine_service.runtime.jail.seccomp import ALLOW, ANYHOW, ERRNO, EVERYTHING, KILL, WITH, Is, Program, compiled
from engine_service.runtime.jail.syscalls import AARCH64, NEWEST, X86_64, Architecture

ENOSYS, EPERM, EAFNOSUPPORT = 38, 1, 97


def decided(program: Program, audit: int, number: int, *arguments: int) -> int:
    """Run a program on a call, and return what it decides."""
    data = struct.pack("<IIQ6Q", number, audit, 0, *[*arguments, *[0] * 6][:6])
    at, value = 0, 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        match code:
            case seccomp.LOAD:
                (value,) = struct.unpack_from("<I", data, k)
            case seccomp.AND:
                value &= k
            case seccomp.JUMP_EQUAL:
                at += yes if value == k else no
            case seccomp.JUMP_OVER:
                at += yes if value >= k else no
            case seccomp.RETURN:
                return k
            case _:
                raise AssertionError(code)


RULES: seccomp.Rules = dict.fromkeys(EVERYTHING, ANYHOW) | WITH
MACHINES = [X86_64, AARCH64]


def meets(is_: Is, arguments: tuple[int, ...]) -> bool:
    """Say it in Python."""
    return ((arguments[is_.argument] & is_.mask & 0xFFFFFFFF) == is_.value) != is_.otherwise


@pytest.mark.parametrize("machine", MACHINES, ids=["x86_64", "aarch64"])
@given(data=st.data())
def test_it_decides_as_the_table_says(machine: Architecture, data: Any) -> None:
    """For each call, with whatever arguments: allowed if it is listed, and its arguments are as one line has it."""
    program = compiled(machine, RULES)
    name = data.draw(st.sampled_from(sorted(machine.numbers)))
    near = st.sampled_from([0, 1, 2, 5, 6, 10, 0x21, 0x22, 0x5412, 1 << 29, 0x10000000, 0x80002, 0xFFFFFFFF, 1 << 32])
    arguments = tuple(data.draw(near | st.integers(0, 2**64 - 1)) for _ in range(6))
    lines = RULES.get(name)
    is_allowed = lines is not None and (not lines or any(all(meets(is_, arguments) for is_ in line) for line in lines))
    found = decided(program, machine.audit, machine.numbers[name], *arguments)
    assert (found == ALLOW) == is_allowed
    assert is_allowed or found & 0xFFFF0000 == ERRNO


@pytest.mark.parametrize("machine", MACHINES, ids=["x86_64", "aarch64"])
def test_what_is_not_listed(machine: Architecture) -> None:
    """Other machines' calls end the process; younger calls don't exist; all others are refused."""
    program = compiled(machine, RULES)
    assert decided(program, 0x40000003, 1) == KILL
    known = set(machine.numbers.values())
    for number in range(1024):
        if number not in known:
            assert decided(program, machine.audit, number) == ERRNO | (ENOSYS if number > NEWEST else EPERM)
    assert decided(program, machine.audit, machine.numbers["clone3"]) == ERRNO | ENOSYS
    assert decided(program, machine.audit, machine.numbers["socket"], 1, 1, 0) == ERRNO | EAFNOSUPPORT
    if machine is X86_64:
        assert decided(program, machine.audit, 0x40000000 | 41, 2, 1, 0) == ERRNO | ENOSYS  # by way of x32


def test_what_stands_in_the_table() -> None:
    """The calls that nobody in a jail makes."""
    never = """
    ptrace process_vm_readv process_vm_writev mount umount2 pivot_root chroot bpf perf_event_open
    keyctl add_key request_key
    io_uring_setup io_uring_enter setns open_by_handle_at userfaultfd kexec_load init_module bind listen accept accept4
    memfd_create shmget msgget semget mq_open pidfd_getfd setuid setresuid inotify_add_watch fanotify_init swapon
    """
    assert not set(never.split()) & EVERYTHING
    assert {"read", "write", "futex", "execve", "connect"} <= EVERYTHING
