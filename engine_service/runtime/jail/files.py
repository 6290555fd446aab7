"""What a jail's processes may read: what Python, the agents' modules, certificates and time zones need."""

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
CERTIFICATES = (
    "/etc/ssl/certs",  # and not what lies beside it: keys
    "/etc/ssl/openssl.cnf",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
)
ZONES = ("/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo")
ABOUT = (
    *("/etc/ld.so.cache", "/etc/os-release", "/etc/mime.types", "/etc/services", "/etc/protocols"),
    *("/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/sys/vm/overcommit_memory", "/sys/devices/system/cpu"),
)
"""What the C library and others read of the machine. Nothing here tells of its users, or of its processes."""
MODULES = (".py", ".pyc", ".so", ".pth", ".zip", ".egg")


DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
"""They are written to, too."""


def readable(named: Iterable[str]) -> list[str]:
    """Return all that may be read, with what an operator has named."""
    return [*LIBRARIES, *CERTIFICATES, *ZONES, *ABOUT, *_pythons(), *_modules(), *named]


def listed() -> list[str]:
    """Return the folders of modules. They are listed where Python looks for modules, but not read."""
    return [path for path in sys.path if path != os.sep and Path(path).is_dir()]


def _pythons() -> Iterator[str]:
    """Find what is Python's own, and what is installed beside it."""
    yield from (sys.executable, os.path.realpath(sys.executable))
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}:
        yield from (f"{prefix}/lib", f"{prefix}/lib64", f"{prefix}/pyvenv.cfg")
    yield from _installed()


def _installed() -> list[str]:
    """Return where modules are installed: not the whole of what else is there."""
    paths = sysconfig.get_paths()
    return [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]


def _modules() -> Iterator[str]:
    """Find modules and packages where Python looks for them. What else lies there is none of an agent's business."""
    installed = set(_installed())
    for folder in map(Path, listed()):
        if str(folder) in installed or folder.name in {"site-packages", "dist-packages"}:
            yield str(folder)
            continue
        with suppress(OSError):
            for path in folder.iterdir():
                if path.suffix in MODULES or (path.name.isidentifier() and _is_package(path)):
                    yield str(path)
    yield from (path for path in sys.path if Path(path).is_file())  # an archive of modules


def _is_package(folder: Path) -> bool:
    """Tell whether there are modules in a folder, or in those below it if it is a namespace."""
    with suppress(OSError):
        return any(True for pattern in ("*.py", "*/*.py") for _ in folder.glob(pattern))
    return False
