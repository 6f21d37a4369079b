"""``python -m benches.gpu``: run the checks, one after the other, and write a row for each finding.

The check ``kernel-tests`` runs the tests in the folder that ``--kernel-tests``, or the variable ``TWINLOSS_KERNEL_TESTS``, names.

Exit codes: 0 nothing failed (without a GPU the output says that nothing was measured), 1 something failed, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

# Deterministic matrix products need it, and it is read when the first one runs.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

from benches.gpu.finding import Check, GpuFinding, append, run_check
from benches.gpu.limits import LIMITS
from benches.measure.environment import commit, machine, now, versions
from oracle.tools.atomic_files import write_frame

OUT = Path("reports", "out", "gpu")
KERNEL_TESTS = "kernel-tests"
# Module and function of each check, in the order in which they run: the quick ones first.
CHECKS = {
    KERNEL_TESTS: "correctness:kernel_tests",
    "counts": "costs:counts",
    "bits": "correctness:bits",
    "graph": "correctness:graph",
    "judge": "correctness:judged",
    "ties": "ties:ties",
    "speed": "costs:speed",
    "kernels": "costs:kernels",
    "launches": "costs:launches",
    "training": "training_step:training",
    "sizes": "sizes:sizes",
    "crowded": "costs:crowded",
    "properties": "differential:properties",
    "beyond-32-bits": "correctness:beyond_32_bits",
    "sanitizer": "correctness:sanitizer",
    "compiled": "sizes:compiled",
}
NO_GPU = "There is no GPU here: nothing of the Triton backend was measured on a GPU."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser("python -m benches.gpu", description="Check and measure the Triton kernels on a GPU.")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"some of {', '.join(CHECKS)}; all when left out")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for rows.jsonl and rows.parquet")
    named = os.environ.get("TWINLOSS_KERNEL_TESTS") or None
    parser.add_argument("--kernel-tests", type=Path, default=named, metavar="FOLDER", help="tests to run on the GPU")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.checks if name not in CHECKS]:
        parser.error(f"there is no check {unknown[0]!r}; there are {', '.join(CHECKS)}")
    if options.kernel_tests and not options.kernel_tests.is_dir():
        parser.error(f"--kernel-tests {options.kernel_tests}: there is no such folder; give the folder that holds the kernels' tests")
    options.out.mkdir(parents=True, exist_ok=True)
    lines = options.out / "rows.jsonl"
    lines.unlink(missing_ok=True)
    failed = _run(options.checks or list(CHECKS), lines, options.kernel_tests)
    _write_parquet(lines)
    return int(failed)


def _run(names: Sequence[str], lines: Path, kernel_tests: Path | None) -> bool:
    present = torch.cuda.is_available()
    toolkit = {"triton": _triton_version(), "cuda": torch.version.cuda or "none"}
    common = versions() | machine() | toolkit | {"commit": commit(), "written": now()}
    print(
        NO_GPU if not present else f"{common['gpu']}, torch {common['torch']}, triton {common['triton']}, commit {common['commit']}",
        flush=True,
    )
    failed = False
    for name in names:
        found = run_check(name, _check(name, kernel_tests)) if present else _missing(name)
        for finding in found:
            if present:
                print(finding.line, flush=True)
            append(lines, finding, common)
            failed |= finding.verdict == "failed"
    return failed


def _missing(name: str) -> Iterator[GpuFinding]:
    """Yields the findings of a check that was not run: its limits, as not measured."""
    limits = [limit for limit in LIMITS if limit.check == name]
    yield from (limit.not_measured(NO_GPU) for limit in limits)
    if not limits:
        yield GpuFinding(name, "all of it", "not measured", detail=NO_GPU)


def _check(name: str, kernel_tests: Path | None) -> Check:
    module, _, function = CHECKS[name].partition(":")
    arguments = (kernel_tests,) if name == KERNEL_TESTS else ()

    def check() -> Iterator[GpuFinding]:
        # Imported here, so that a package that one check lacks does not stop the others.
        yield from getattr(importlib.import_module(f"benches.gpu.{module}"), function)(*arguments)

    return check


def _triton_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("triton")
    except PackageNotFoundError:
        return "not installed"


def _write_parquet(lines: Path) -> None:
    try:
        import pandas as pd

        write_frame(pd.read_json(lines, lines=True, dtype=False), lines.with_suffix(".parquet"))
    except ImportError as error:
        print(f"{lines} was written, but no parquet file: {error}")


if __name__ == "__main__":
    sys.exit(main())
