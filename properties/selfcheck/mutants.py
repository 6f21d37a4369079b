"""``python -m properties.selfcheck.mutants``: test the tests with a sample of generic mutants of the twin or of the judge.

Mutants are made by cosmic-ray. A mutant of the twin is killed if the comparison with the definition finds it; a mutant of the judge is
killed if the tests of the oracle fail. Survivors are listed with their changed lines. Some compute the same result; the others show that a
strategy or a test is missing.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from oracle.tools.atomic_files import write_frame
from oracle.tools.programs import HangError, run
from properties.selfcheck.planted_faults.parallel import print_line

ROOT = Path(__file__).parents[2]
ROWS = Path("reports", "out", "mutants.parquet")
_NEEDS_A_NAME = ("core/VariableReplacer", "core/VariableInserter")
PIPELINE = (
    "anchors",
    "assignment/ground_truth",
    "geometry/corners",
    "geometry/upright",
    "assignment/candidates",
    "assignment/overlaps",
    "assignment/assign",
    "assignment/ragged",
    "gather_anchors",
    "terms/boxes",
    "terms/classification",
    "terms/held",
    "loss",
)
JUDGE = ("definition", "inference", "judge", "tolerance")  # packages
SOURCES = {
    "twin": [f"impl/twinloss/{name}.py" for name in PIPELINE],
    "judge": [str(path.relative_to(ROOT)) for name in JUDGE for path in sorted((ROOT / "oracle" / name).rglob("*.py"))],
}
JUDGE_TESTS = (*(f"oracle/{name}" for name in JUDGE), "properties/differential/test_saved_cases.py")
CHECKED_BY = {
    "twin": ["-m", "properties.selfcheck.mutant_check"],
    "judge": ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(f"properties/tests/{name}" for name in JUDGE_TESTS)],
}


@dataclass(frozen=True)
class Mutant:
    """A file with one mutation.

    Attributes:
        path: path of the file, relative to the project's root.
        operator: cosmic-ray's name of the mutation.
        difference: the changed lines.
        code: text of the whole file.
    """

    path: str
    operator: str
    difference: str
    code: str


def mutants(path: str, operator: str) -> Iterator[Mutant]:
    """Yields the mutants that an operator makes of a file, except those that differ in annotations and docstrings alone."""
    original = (ROOT / path).read_text("utf-8")
    normalised, operate = _normalised(original), get_operator(operator)()
    for occurrence in itertools.count():
        code = mutate_code(original, operate, occurrence)
        if code is None:
            return
        if _normalised(code) != normalised:
            lines = difflib.unified_diff(original.splitlines(), code.splitlines(), n=0, lineterm="")
            yield Mutant(path, operator.removeprefix("core/"), "\n".join(list(lines)[3:]), code)


def sampled(paths: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """Returns ``count`` mutants, each with another operator or of another file."""
    draw = random.Random(seed)
    ways = [(path, operator) for path in paths for operator in operator_names() if operator not in _NEEDS_A_NAME]
    draw.shuffle(ways)
    found = (list(mutants(path, operator)) for path, operator in ways)
    return [draw.choice(some) for some in itertools.islice(filter(None, found), count)]


def _normalised(code: str) -> str:
    """Returns a program without annotations and docstrings, or its text if it does not parse."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return code
    return ast.dump(_Stripped().visit(tree))


class _Stripped(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(0)
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)


def outcome_of(mutant: Mutant, subject: str, checkout: Path, limit: float) -> str:
    """Returns ``killed``, ``timed out`` (which counts as killed) or ``survived`` for a mutant in a copy of the project."""
    target = checkout / mutant.path
    original = target.read_text("utf-8")
    target.write_text(mutant.code, "utf-8")
    environment = os.environ | {"PYTHONPATH": f"{checkout / 'impl'}{os.pathsep}{checkout}", "OMP_NUM_THREADS": "1", "CI": "1"}
    command = [sys.executable, "-W", "ignore", *CHECKED_BY[subject]]
    try:
        done = run(command, cwd=checkout, env=environment, busy_s=limit, idle_s=limit)
    except HangError:
        return "timed out"
    finally:
        target.write_text(original, "utf-8")
    return "killed" if done.returncode else "survived"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 also with survivors, 2 if the unchanged project fails its tests."""
    options = _options(arguments)
    sample = sampled(SOURCES[options.subject], options.sample, options.seed)
    rows = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        checkout = _copy(Path(folder))
        unchanged = Mutant(SOURCES[options.subject][0], "", "", (ROOT / SOURCES[options.subject][0]).read_text("utf-8"))
        if outcome_of(unchanged, options.subject, checkout, options.limit) != "survived":
            print_line("the project fails its tests without a mutation: correct it first")
            return 2
        for mutant in sample:
            start = time.perf_counter()
            fate = outcome_of(mutant, options.subject, checkout, options.limit)
            rows.append((mutant.path, mutant.operator, mutant.difference, fate, time.perf_counter() - start))
            print_line(f"{fate:<9} {mutant.path} {mutant.operator}" + (f"\n{mutant.difference}" if fate == "survived" else ""))
    frame = pd.DataFrame(rows, columns=["path", "operator", "difference", "fate", "seconds"])
    write_frame(frame, options.rows)
    print_line(f"{int((frame['fate'] != 'survived').sum())} of {len(frame)} killed; seed {options.seed}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m properties.selfcheck.mutants", description="A sample of generic mutants.")
    parser.add_argument("subject", nargs="?", choices=SOURCES, default="twin", help="the mutated code (default: %(default)s)")
    parser.add_argument("--sample", type=int, default=20, metavar="N", help="number of mutants (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=600, metavar="SECONDS", help="processor time for one mutant (default: %(default)s)")
    parser.add_argument("--rows", type=Path, default=ROWS, metavar="FILE", help="file for the rows (default: %(default)s)")
    return parser.parse_args(arguments)


def _copy(folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "out", ".*")
    for name in ("impl", "oracle", "properties", "benches", "reports"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
