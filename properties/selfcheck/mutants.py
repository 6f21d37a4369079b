"""``python -m properties.selfcheck.mutants``: test the tests with a sample of generic mutants of the twin, its kernels, or the judge.

``twin`` and ``judge`` are Python; ``triton`` are the kernels, run by Triton's interpreter; ``native`` are the C++ sources, of which every
mutant is compiled. A mutant of the twin or its kernels is killed if the comparison with the definition finds it; a mutant of the judge is
killed if the tests of the oracle fail. What was run is recorded by its hash: a native mutant whose library is that of the unchanged source
has the same machine code, and a run on another library than the mutant's ends the program. Survivors are listed with their changed lines.
Some compute the same result; the others show that a strategy or a test is missing.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from oracle.tools.atomic_files import write_frame
from oracle.tools.programs import HangError, run
from properties.selfcheck import cpp_mutants, python_mutants
from properties.selfcheck.cpp_mutants import Mutant
from properties.selfcheck.planted_faults.parallel import print_line

ROOT = Path(__file__).parents[2]
ROWS = Path("reports", "out", "mutants.parquet")
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
Tasks = tuple[str, ...]
SHARED, OWN = ("detect", "oriented"), {"segment": ("segment",), "oriented": ("oriented",), "pose": ("pose",)}
"""Tasks whose losses a kernel's source is compared by: all tasks share detection's, of which two suffice."""

KERNELS: dict[Tasks, Sequence[str]] = {
    ("detect",): (
        *("decode", "bins", "geometry", "overlap", "alignment", "candidates_and_softplus", "topk_walk", "resolve", "second_topk", "merge"),
        *("held_terms", "held_terms_gradient", "dense_gradient", "reduce_terms", "softplus", "arithmetic"),
    ),
    OWN["segment"]: (
        *("preselect", "mask_overlap", "true_mask_sizes", "held_crops", "mask_tile", "mask_pixels", "mask_term"),
        *("mask_coefficients_gradient", "mask_prototypes_gradient", "class_map", "semantic_sums", "semantic_gradient", "reduce_mask_terms"),
    ),
    OWN["oriented"]: ("decode_oriented", "oriented", "probiou"),
    OWN["pose"]: ("keypoints", "keypoint_residuals", "keypoint_terms", "keypoint_gradient"),
}
HEADERS: dict[Tasks, Sequence[str]] = {
    SHARED: (
        *("assignment", "classification", "conflict", "decode", "functions", "held_lanes", "held_tile", "lanes", "output", "overlap"),
        *("plain_numbers", "pyramid", "storage", "terms", "upright"),
    ),
    OWN["segment"]: ("mask_overlap", "mask_pieces", "mask_products", "mask_term", "mask_tile", "semantic"),
    OWN["oriented"]: ("angles", "oriented", "probiou"),
    OWN["pose"]: ("keypoint_likelihood", "keypoint_terms", "keypoints", "log_numbers"),
}
NOT_MUTATED = ("arguments", "mask_arguments", "entry", "threads")
"""Headers that compute nothing: layouts of memory that Python writes, the choice of a template, the number of a thread."""

JUDGE = ("definition", "inference", "judge", "tolerance")  # packages
JUDGE_TESTS = (*(f"oracle/{name}" for name in JUDGE), "properties/differential/test_saved_cases.py")
CHECK = ("-m", "properties.selfcheck.mutant_check")
KILLED, SURVIVED, TIMED_OUT, NOT_COMPILED, SAME_CODE = "killed", "survived", "timed out", "not compiled", "same machine code"
AGAIN = 4
"""How many times as many batches a mutant is compared on that survived, which is rare."""

NO_LIBRARY = 3
"""Exit code of the check where the kernels do not compile."""

Mutate = Callable[[Path, str, str], Iterator[Mutant]]


@dataclass(frozen=True)
class Subject:
    """Code that is mutated.

    Attributes:
        paths: its files, relative to the project's root, and the tasks whose losses they are compared by, if the check takes tasks.
        check: arguments of Python that end with another code than 0 if the code is wrong.
        mutate, operators: how mutants are made.
        environment: variables of the check.
        compiled: whether the check compiles it, and says which library it ran.
    """

    paths: Mapping[str, Tasks]
    check: Sequence[str]
    mutate: Mutate = python_mutants.mutants
    operators: Sequence[str] = python_mutants.OPERATORS
    environment: Mapping[str, str] = field(default_factory=dict)
    compiled: bool = False


def _paths(form: str, names: Mapping[Tasks, Sequence[str]]) -> dict[str, Tasks]:
    return {form.format(name): tasks for tasks, group in names.items() for name in group}


SUBJECTS = {
    "twin": Subject(_paths("impl/twinloss/{}.py", {("detect",): PIPELINE}), CHECK),
    "triton": Subject(
        _paths("impl/twinloss/backends/triton/{}.py", KERNELS), (*CHECK, "--backend", "triton"), environment={"TRITON_INTERPRET": "1"}
    ),
    "native": Subject(
        _paths("impl/twinloss/backends/native/source/{}.hpp", HEADERS),
        (*CHECK, "--backend", "native"),
        cpp_mutants.mutants,
        cpp_mutants.OPERATORS,
        # The narrowest instruction set without optimisation compiles in a fraction of the time, from the same sources.
        {"TWINLOSS_BUILD": "1", "TWINLOSS_ISA": "baseline", "TWINLOSS_CXXFLAGS": "-O0"},
        compiled=True,
    ),
    "judge": Subject(
        {str(path.relative_to(ROOT)): () for name in JUDGE for path in sorted((ROOT / "oracle" / name).rglob("*.py"))},
        ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(f"properties/tests/{name}" for name in JUDGE_TESTS)],
    ),
}


class WrongLibraryError(RuntimeError):
    """The check ran another library than the mutant's, so that its outcome says nothing."""


def sampled(subject: Subject, count: int, seed: int) -> list[Mutant]:
    """Returns ``count`` mutants, each with another operator or of another file."""
    draw = random.Random(seed)
    ways = [(path, operator) for path in subject.paths for operator in subject.operators]
    draw.shuffle(ways)
    found = (list(subject.mutate(ROOT, path, operator)) for path, operator in ways)
    return [draw.choice(some) for some in itertools.islice(filter(None, found), count)]


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant, and the hash of the library that was run; empty where nothing is compiled."""

    fate: str
    library: str = ""


class Checkout:
    """A copy of the project in which mutants are run.

    Args:
        folder: an empty folder.
        subject: the mutated code.
        limit: processor time for one mutant, in seconds.
    """

    def __init__(self, folder: Path, subject: Subject, limit: float) -> None:
        self.folder, self.subject, self.limit = folder, subject, limit
        ignored = shutil.ignore_patterns("__pycache__", "out", ".*")
        for name in ("impl", "oracle", "properties", "benches", "reports"):
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", folder)
        self.unchanged: dict[Tasks, Outcome] = {}

    def unchanged_for(self, path: str) -> Outcome:
        """Runs the unchanged project on the tasks of a file, once for the same tasks."""
        tasks = self.subject.paths[path]
        if tasks not in self.unchanged:
            self.unchanged[tasks] = self._checked(tasks)
        return self.unchanged[tasks]

    def outcome_of(self, mutant: Mutant) -> Outcome:
        """Runs a mutant.

        Raises:
            WrongLibraryError: another library was run than that of the mutant.
        """
        target, unchanged = self.folder / mutant.path, self.unchanged_for(mutant.path)
        tasks = self.subject.paths[mutant.path]
        original = target.read_text("utf-8")
        target.write_text(mutant.code, "utf-8")
        try:
            found = self._checked(tasks)
            same_code = bool(found.library) and found.library == unchanged.library
            if found.fate == SURVIVED and tasks and not same_code:
                found = self._checked(tasks, again=True)
        finally:
            target.write_text(original, "utf-8")
        return Outcome(SAME_CODE, found.library) if same_code else found

    def _checked(self, tasks: Tasks, *, again: bool = False) -> Outcome:
        """Runs the check; ``again`` with the :data:`AGAIN`-fold number of batches."""
        with tempfile.TemporaryDirectory(prefix="kernels-") as cache:
            said = Path(cache, "library.txt")
            environment = os.environ | {"PYTHONPATH": f"{self.folder / 'impl'}{os.pathsep}{self.folder}", "OMP_NUM_THREADS": "1", "CI": "1"}
            environment |= {"TWINLOSS_CACHE": cache, "MUTANT_LIBRARY": str(said), **self.subject.environment}
            command = [sys.executable, "-W", "ignore", *self.subject.check, *(word for task in tasks for word in ("--task", task))]
            command += ["--scale", str(AGAIN)] if again else []
            try:
                code = run(command, cwd=self.folder, env=environment, busy_s=self.limit, idle_s=self.limit).returncode
            except HangError:
                return Outcome(TIMED_OUT)
            if code == NO_LIBRARY and self.subject.compiled:
                return Outcome(NOT_COMPILED)
            return Outcome(KILLED if code else SURVIVED, self._library(said, Path(cache)) if self.subject.compiled else "")

    @staticmethod
    def _library(said: Path, cache: Path) -> str:
        """Returns the hash of the library that the check loaded, which must be one that it compiled itself."""
        path, _, digest = said.read_text("utf-8").partition("\n") if said.exists() else ("", "", "")
        if not Path(path).is_relative_to(cache.resolve()):
            raise WrongLibraryError(f"the check ran {path or 'no library'}, not one compiled in {cache}; uninstall twinloss's libraries")
        return digest.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 also with survivors, 2 if the unchanged project fails its tests."""
    options = _options(arguments)
    subject = SUBJECTS[options.subject]
    sample = sampled(subject, options.sample, options.seed)
    rows = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        checkout = Checkout(Path(folder), subject, options.limit)
        for mutant in sample:
            if (fate := checkout.unchanged_for(mutant.path).fate) != SURVIVED:
                print_line(f"without a mutation the project is {fate} on {', '.join(subject.paths[mutant.path])}: correct it first")
                return 2
            start = time.perf_counter()
            found = checkout.outcome_of(mutant)
            rows.append((mutant.path, mutant.operator, mutant.difference, found.fate, found.library, time.perf_counter() - start))
            print_line(f"{found.fate:<9} {mutant.path} {mutant.operator}" + (f"\n{mutant.difference}" if found.fate == SURVIVED else ""))
    frame = pd.DataFrame(rows, columns=["path", "operator", "difference", "fate", "library", "seconds"])
    write_frame(frame, options.rows)
    ran = frame[~frame["fate"].isin((NOT_COMPILED, SAME_CODE))]
    print_line(f"{int((ran['fate'] != SURVIVED).sum())} of {len(ran)} killed, {len(frame) - len(ran)} were none; seed {options.seed}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m properties.selfcheck.mutants", description="A sample of generic mutants.")
    parser.add_argument("subject", nargs="?", choices=SUBJECTS, default="twin", help="the mutated code (default: %(default)s)")
    parser.add_argument("--sample", type=int, default=20, metavar="N", help="number of mutants (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=600, metavar="SECONDS", help="processor time for one mutant (default: %(default)s)")
    parser.add_argument("--rows", type=Path, default=ROWS, metavar="FILE", help="file for the rows (default: %(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
