"""``python -m properties.selfcheck.mutant_check``: compare the twin on the path with the definition; ends with 1 at the first difference.

Every run draws the same batches. A mutant of the twin is compared with the definition alone, without the reference. Of the compiled kernels
the path and the hash of the library are written to the file that ``MUTANT_LIBRARY`` names; without a library it ends with 3.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, seed, settings

from oracle.cases.case import Case, Setting
from oracle.comparison.compare import compare
from oracle.comparison.registry import TWINS, shipped
from oracle.contract.contender import Contender
from oracle.contract.verdict import Verdict
from properties.strategies import PROFILES
from properties.tasks import TASKS

BATCHES = {
    "torch": ((Setting("float64"), 60), (Setting("float32"), 30), (Setting("bfloat16"), 15), (Setting("float16"), 15)),
    "native": ((Setting("float32"), 60), (Setting("bfloat16"), 20), (Setting("float16"), 20)),
    "triton": ((Setting("float32"), 12), (Setting("bfloat16"), 4), (Setting("float16"), 4)),
}
"""Settings and numbers of batches; the interpreter of the Triton kernels is slow."""

INTERPRETED = {"segment": 0.25, "pose": 0.5}
"""Share of these numbers for tasks that the interpreter takes longest for: a batch of masks takes it 14 s, one of boxes 3 s."""

NO_LIBRARY = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare in every setting and return the exit code."""
    parser = argparse.ArgumentParser("python -m properties.selfcheck.mutant_check")
    parser.add_argument("--backend", choices=BATCHES, default="torch", help="default: %(default)s")
    parser.add_argument("--task", action="append", choices=TASKS, required=True, help="a task whose loss is compared; repeatable")
    parser.add_argument("--scale", type=float, default=1, metavar="FACTOR", help="multiply the numbers of batches (default: %(default)s)")
    options = parser.parse_args(arguments)
    backend = options.backend
    torch.set_num_threads(1)
    if backend == "native" and not _library_noted():
        return NO_LIBRARY
    for task in options.task:
        share = options.scale * (INTERPRETED.get(task, 1) if backend == "triton" else 1)
        for setting, count in BATCHES[backend]:
            agree(task, setting, round(count * share), contenders(task, backend))
    return 0


def contenders(task: str, backend: str) -> list[Contender]:
    """Returns the twin of a task with a backend; of torch's with both rules for ties."""
    if backend == "torch":
        ours = shipped(task)
        return [ours["twin-torch"], ours["twin-reference-ties"]]
    return [Contender(f"twin-{backend}", "", functools.partial(TWINS[task], validate=True, backend=backend), arithmetic="float32")]


def _library_noted() -> bool:
    """Writes which library is loaded; false if there is none."""
    from twinloss.backends.native.compiler import NoLibraryError
    from twinloss.backends.native.library import cpu_kernels

    try:
        path = cpu_kernels().path.resolve()
    except NoLibraryError as error:
        sys.stdout.write(f"{error}\n")
        return False
    if noted := os.environ.get("MUTANT_LIBRARY"):
        Path(noted).write_text(f"{path}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n", "utf-8")
    return True


def agree(task: str, setting: Setting, count: int, ours: Sequence[Contender]) -> None:
    """Compare contenders on ``count`` batches of a task; exits with 1 at the first difference."""

    @seed(0)
    @settings(max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(TASKS[task].cases(PROFILES["tiny"]))
    def examine(case: Case) -> None:
        comparison = compare(case, setting, list(ours))
        if comparison.verdict is Verdict.DIFFER:
            sys.stdout.write(comparison.report())
            sys.exit(1)

    examine()


if __name__ == "__main__":
    sys.exit(main())
