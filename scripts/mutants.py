"""Changes the code at sampled places, and sees which changes its own tests do not notice.

Each mutant lives in a process that is forked from one which has imported the tests, so that it costs what its tests
cost and no more.
"""

import ast
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SEED = 12
AT_ONCE = os.cpu_count() or 1
PATIENCE = 120.0
"""Seconds until a mutant that goes round in circles counts as noticed."""
TESTS = {
    "engine_service/wire.py": ["tests/engine_service/test_wire.py"],
    "engine_service/stores/memory.py": ["tests/engine_service/stores/test_memory.py"],
    "engine_service/runs/outcome.py": ["tests/engine_service/runs/test_outcome.py"],
    "engine_service/runs/admission.py": ["tests/engine_service/runs/test_admission.py"],
    "engine_service/runs/tally.py": ["tests/engine_service/runs/test_admission.py"],
    "engine_service/runs/refusal.py": ["tests/engine_service/calls/test_status.py"],
    "engine_service/runs/run.py": ["tests/engine_service/runs/test_run.py"],
    "engine_service/runs/resumable.py": ["tests/engine_service/runs/test_resumable.py"],
}
COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COUNTED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


def changes(node: ast.AST) -> Iterator[Callable[[ast.AST], None]]:
    """Offer what can be changed at a node, as functions that change it."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
        yield lambda found: found.ops.__setitem__(0, COMPARED[type(found.ops[0])]())
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in COUNTED:
        yield lambda found: setattr(found, "op", COUNTED[type(found.op)]())
    if isinstance(node, ast.BoolOp):
        yield lambda found: setattr(found, "op", ast.Or() if isinstance(found.op, ast.And) else ast.And())
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        changed = not node.value if isinstance(node.value, bool) else node.value + 1
        yield lambda found: setattr(found, "value", changed)
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        yield lambda found: setattr(found, "test", ast.UnaryOp(ast.Not(), found.test))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.If | ast.For | ast.While | ast.With | ast.Try):
        for place, statement in enumerate(node.body):
            if isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Constant | ast.Yield):
                yield lambda found, place=place: found.body.__setitem__(place, ast.Pass())
            if isinstance(statement, ast.Assign | ast.AugAssign | ast.Delete | ast.Return | ast.Raise):
                yield lambda found, place=place: found.body.__setitem__(place, ast.Pass())


Place = tuple[str, int, int]
"""A module, a node of it, and a way to change that."""


def hints(tree: ast.AST) -> set[ast.AST]:
    """Return what is there for type checkers alone."""
    annotations = [getattr(node, name, None) for node in ast.walk(tree) for name in ("annotation", "returns")]
    return {inner for each in annotations if each for inner in ast.walk(each)}


def places() -> list[Place]:
    """Return each way to change each module."""
    trees = [(file, ast.parse((ROOT / file).read_text(encoding="utf-8"))) for file in TESTS]
    return [
        (file, number, way)
        for file, tree, ignored in [(file, tree, hints(tree)) for file, tree in trees]
        for number, node in enumerate(ast.walk(tree))
        if node not in ignored
        for way, _ in enumerate(changes(node))
    ]


def mutant(place: Place) -> tuple[str, ast.Module]:
    """Change a module there: say how, and return what it becomes."""
    file, number, way = place
    source = (ROOT / file).read_text(encoding="utf-8")
    before = ast.unparse(ast.parse(source)).splitlines()
    tree = ast.parse(source)
    node = next(islice(ast.walk(tree), number, None))
    list(changes(node))[way](node)
    ast.fix_missing_locations(tree)
    line = getattr(node, "lineno", 0)
    new = [text.strip() for text in ast.unparse(tree).splitlines() if text not in before]
    return f"{file}:{line}: {source.splitlines()[line - 1].strip()}  →  {new[0] if new else '(gone)'}", tree


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module in its changed form."""

    def __init__(self, file: str, tree: ast.Module) -> None:
        self._name = file.removesuffix(".py").replace("/", ".")
        self._code = compile(tree, file, "exec")

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Find it."""
        return importlib.util.spec_from_loader(name, self) if name == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        """Execute it."""
        exec(self._code, vars(module))  # noqa: S102 - our own code


def begin(file: str, tree: ast.Module) -> int:
    """Start a process in which a module is changed, and its tests are run. Its status is 0 when they pass."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            sys.meta_path.insert(0, Changed(file, tree))
            status = pytest.main(["-q", "-x", "-p", "no:cacheprovider", *TESTS[file]])
        except BaseException:  # noqa: BLE001 - it is noticed
            status = 1
    os._exit(int(status))


def main() -> None:
    """Try as many mutants as are asked for."""
    known = places()
    many = min(int(sys.argv[1]), len(known))
    chosen = random.Random(SEED).sample(known, many)  # noqa: S311 - the same ones every time
    print(f"{many} of {len(known)} mutants", flush=True)
    running: dict[int, tuple[str, float]] = {}
    survivors = 0
    while chosen or running:
        while chosen and len(running) < AT_ONCE:
            place = chosen.pop()
            where, tree = mutant(place)
            running[begin(place[0], tree)] = where, time.monotonic() + PATIENCE
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            where, _ = running.pop(pid)
            if status == 0:
                survivors += 1
                print(f"lives: {where}", flush=True)
        elif not pid:
            for late in [late for late, (_, until) in running.items() if time.monotonic() > until]:
                os.killpg(late, signal.SIGKILL)
            time.sleep(0.02)
    print(f"{survivors} of {many} outlived their module's own tests")


if __name__ == "__main__":
    main()
