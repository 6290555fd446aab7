"""Runs a command as a container would: without capabilities, and under the profile that deploy/ ships."""

import json
import os
import sys
from pathlib import Path

from engine_service.runtime.jail import capabilities, seccomp
from engine_service.runtime.jail.syscalls import X86_64

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "deploy" / "docker" / "seccomp.json"
MORE = {
    "accept": 43, "bind": 49, "listen": 50, "setuid": 105, "setgid": 106, "setreuid": 113, "setregid": 114,
    "setgroups": 116, "setresuid": 117, "setresgid": 119, "setfsuid": 122, "setfsgid": 123, "mlockall": 151,
    "munlockall": 152, "sync": 162, "mount": 165, "umount2": 166, "inotify_add_watch": 254, "inotify_rm_watch": 255,
    "accept4": 288, "inotify_init1": 294, "syncfs": 306, "memfd_create": 319, "mount_setattr": 442,
}  # fmt: skip
"""The numbers of what a jail's processes may not call, and the engine may."""


def command() -> list[str]:
    """Return what to put before a command."""
    return ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.support.contained"]


def main() -> None:
    """Be contained, and become the command."""
    machine = X86_64._replace(numbers={**X86_64.numbers, **MORE})
    rules: seccomp.Rules = {}
    for each in json.loads(PROFILE.read_text())["syscalls"]:
        rules |= dict.fromkeys(each["names"], seccomp.ANYHOW) if each["action"] == "SCMP_ACT_ALLOW" else {}
    assert rules.keys() - machine.numbers.keys() == set()
    capabilities.forgo()
    seccomp.Filter(seccomp.compiled(machine, rules)).install()
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
