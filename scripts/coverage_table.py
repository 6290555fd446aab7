"""Says which lines tests run: by each module's own tests, and by all of them, in every process."""

import sys
from pathlib import Path

from coverage import Coverage

ENOUGH = 95
GUARDED = ("engine_service/runs/", "engine_service/wire.py", "engine_service/runtime/")
"""Where less is a failure."""


def covered(folder: Path, name: str) -> dict[str, tuple[int, list[int]]]:
    """Return how many lines each module has, and which of them were not run."""
    found = Coverage(data_file=str(folder / name))
    found.combine([str(file) for file in folder.glob(f"{name}.*")])
    found.load()
    known: dict[str, tuple[int, list[int]]] = {}
    for file in found.get_data().measured_files():
        _, lines, _, missing, _ = found.analysis2(file)
        if lines:
            known[str(Path(file).relative_to(Path.cwd()))] = (len(lines), missing)
    return known


def share(lines: int, missing: list[int]) -> float:
    """Return how many of a hundred lines were run."""
    return 100 * (lines - len(missing)) / lines


def main() -> None:
    """Print a line for each module, and fail where less than enough is run."""
    folder = Path(sys.argv[1])
    own, every = covered(folder, "own"), covered(folder, "all")
    print(f"{'module':44}  own  all  not run by any")
    for module, (lines, missing) in sorted(every.items()):
        by_own = share(*own.get(module, (lines, list(range(lines)))))
        print(f"{module:44} {by_own:4.0f} {share(lines, missing):4.0f}  {' '.join(map(str, missing))}")
    total, missed = 0, 0
    for module, (lines, missing) in every.items():
        if module.startswith(GUARDED):
            total, missed = total + lines, missed + len(missing)
    guarded = 100 * (total - missed) / total
    print(f"{', '.join(GUARDED)}: {guarded:.1f} % of {total} lines, {ENOUGH} % at least")
    sys.exit(guarded < ENOUGH)


if __name__ == "__main__":
    main()
