"""Writes the seccomp profile of containers anew: what the engine, its broker, and jails need, and nothing else."""

import json
from pathlib import Path

from engine_service.runtime.jail import seccomp

PROFILE = Path(__file__).parents[1] / "deploy" / "docker" / "seccomp.json"
ENGINE = """
accept accept4 bind listen inotify_init1 inotify_add_watch inotify_rm_watch memfd_create sync syncfs mlockall munlockall
setuid setgid setgroups setreuid setregid setresuid setresgid setfsuid setfsgid
"""
"""What a service does that its runs may not: be called, and become somebody else."""
JAIL = "unshare mount umount2 mount_setattr"
"""What makes a jail, inside a user namespace: the rights that it takes are had nowhere else."""
ARCHITECTURES = {"SCMP_ARCH_X86_64": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"], "SCMP_ARCH_AARCH64": ["SCMP_ARCH_ARM"]}
NO_SUCH_CALL = 38


def profile() -> dict[str, object]:
    """Return it as Docker, containerd and Kubernetes read it."""
    allowed = seccomp.EVERYTHING | set(ENGINE.split()) | set(JAIL.split())
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [{"architecture": each, "subArchitectures": below} for each, below in ARCHITECTURES.items()],
        "syscalls": [
            {"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": NO_SUCH_CALL},
        ],
    }


def main() -> None:
    """Write it."""
    PROFILE.write_text(f"{json.dumps(profile(), indent=2)}\n")


if __name__ == "__main__":
    main()
