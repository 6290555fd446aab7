"""Python and this checkout, where every user of this machine may read them: for tests of agents with fewer rights."""

import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]


def command() -> list[str]:
    """Return what to put before a command, so that it sees them so. Nothing is changed for anybody else."""
    hidden = defaultdict[Path, list[Path]](list)
    for path in {Path(sys.base_prefix).resolve(), ROOT.resolve()}:
        if barrier := _barrier(path):
            hidden[barrier].append(path)
    if not hidden:
        return []
    steps = ["set -e"]
    for barrier, paths in hidden.items():
        steps += [f'd{n}=$(mktemp -d); mount --rbind "{path}" "$d{n}"' for n, path in enumerate(paths)]
        steps.append(f'mount -t tmpfs -o mode=755 tmpfs "{barrier}"')
        steps += [f'mkdir -p "{path}"; mount --move "$d{n}" "{path}"' for n, path in enumerate(paths)]
    steps.append('cd /; exec "$@"')
    return ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", "\n".join(steps), "visible"]


def _barrier(path: Path) -> Path | None:
    """Return the first folder on the way to a path that others may not pass."""
    ways = [*reversed(path.parents), path]
    return next((each for each in ways if not each.stat().st_mode & 0o001), None)
