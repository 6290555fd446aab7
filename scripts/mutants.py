"""Changes the code at sampled places, and sees which changes its own tests do not notice.

Each mutant lives in a process that is forked from one which has imported the tests, so that it costs what its tests
cost and no more.
"""

import ast
import contextlib
import copy
import importlib
import io
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SEED = 12
AT_ONCE = os.cpu_count() or 1
PATIENCE = 120.0
"""Seconds until a mutant that goes round in circles counts as noticed."""
TESTS = {
    "engine_service/wire.py": ["tests/engine_service/test_wire.py"],
    "engine_service/runs/journal.py": ["tests/engine_service/runs/test_journal.py"],
    "engine_service/runs/outcome.py": ["tests/engine_service/runs/test_outcome.py"],
    "engine_service/runs/admission.py": ["tests/engine_service/runs/test_admission.py"],
    "engine_service/runs/refusal.py": ["tests/engine_service/calls/test_requests.py"],
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


def mutants(file: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield each way to change a module: where, and what it becomes."""
    source = (ROOT / file).read_text(encoding="utf-8")
    tree = ast.parse(source)
    for number, node in enumerate(ast.walk(tree)):
        for way, _ in enumerate(changes(node)):
            mutant = copy.deepcopy(tree)
            changed = next(each for at, each in enumerate(ast.walk(mutant)) if at == number)
            list(changes(changed))[way](changed)
            ast.fix_missing_locations(mutant)
            before, after = source.splitlines(), ast.unparse(mutant).splitlines()
            line = getattr(node, "lineno", 0)
            told = [each for each in after if each not in ast.unparse(tree).splitlines()]
            where = f"{file}:{line}: {before[line - 1].strip()}  →  {told[0].strip() if told else '(gone)'}"
            yield where, mutant


def survives(file: str, mutant: ast.Module) -> int:
    """Start a process in which a module is changed, and its tests are run. Its status is 0 when they pass."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    name = file.removesuffix(".py").replace("/", ".")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            loader = type(
                "Loader",
                (),
                {
                    "create_module": lambda *_: None,
                    "exec_module": lambda _, made: exec(  # noqa: S102 - our own code
                        compile(mutant, file, "exec"), vars(made)
                    ),
                },
            )()
            spec = importlib.util.spec_from_loader(name, loader, origin=str(ROOT / file))
            finder = type("Finder", (), {"find_spec": lambda _, wanted, *__: spec if wanted == name else None})()
            sys.meta_path.insert(0, finder)
            status = pytest.main(["-q", "-x", "-p", "no:cacheprovider", *TESTS[file]])
        except BaseException:  # noqa: BLE001 - it is noticed
            status = 1
    os._exit(int(status))


def main() -> None:
    """Try as many mutants as are asked for."""
    many = int(sys.argv[1])
    known = [(file, *each) for file in TESTS for each in mutants(file)]
    chosen = random.Random(SEED).sample(known, min(many, len(known)))  # noqa: S311 - the same ones every time
    print(f"{len(chosen)} of {len(known)} mutants")
    running: dict[int, tuple[str, float]] = {}
    survivors: list[str] = []
    while chosen or running:
        while chosen and len(running) < AT_ONCE:
            file, where, mutant = chosen.pop()
            running[survives(file, mutant)] = where, time.monotonic() + PATIENCE
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            where, _ = running.pop(pid)
            if status == 0:
                survivors.append(where)
                print(f"lives: {where}", flush=True)
        elif not pid:
            for late in [late for late, (_, until) in running.items() if time.monotonic() > until]:
                os.killpg(late, signal.SIGKILL)
            time.sleep(0.02)
    print(f"{len(survivors)} of {many} outlived their module's own tests")


if __name__ == "__main__":
    main()
