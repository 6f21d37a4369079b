"""``python -m benches.gpu``: run the checks, one after the other, and write a row for each thing found.

Exit codes: 0 nothing failed (or there is no GPU, which is said), 1 something failed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benches.gpu.finding import Check, Finding, append, run_check
from benches.gpu.limits import TARGETS
from benches.measure.environment import commit, machine, now, versions
from oracle.tools.atomic_files import write_frame

OUT = Path("reports", "out", "gpu")
# What is checked where, in this order: the sure and quick first.
CHECKS = {
    "properties": "correctness:properties",
    "counts": "costs:counts",
    "bits": "correctness:bits",
    "graph": "correctness:graph",
    "judge": "correctness:judged",
    "speed": "costs:speed",
    "kernels": "costs:kernels",
    "crowded": "costs:crowded",
    "beyond-32-bits": "correctness:beyond_32_bits",
    "sanitizer": "correctness:sanitizer",
}
NO_GPU = "There is no GPU here: nothing of the Triton backend was measured on a GPU."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the answer is the exit code."""
    parser = argparse.ArgumentParser("python -m benches.gpu", description="Check and measure the Triton kernels on a GPU.")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"some of {', '.join(CHECKS)}; all when left out")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for rows.jsonl and rows.parquet")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.checks if name not in CHECKS]:
        parser.error(f"there is no check {unknown[0]!r}; there are {', '.join(CHECKS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    lines = options.out / "rows.jsonl"
    lines.unlink(missing_ok=True)
    failed = _run(options.checks or list(CHECKS), lines)
    _write_parquet(lines)
    return int(failed)


def _run(names: Sequence[str], lines: Path) -> bool:
    present = torch.cuda.is_available()
    toolkit = {"triton": _triton_version(), "cuda": torch.version.cuda or "none"}
    common = versions() | machine() | toolkit | {"commit": commit(), "written": now()}
    print(
        NO_GPU if not present else f"{common['gpu']}, torch {common['torch']}, triton {common['triton']}, commit {common['commit']}",
        flush=True,
    )
    failed = False
    for name in names:
        found = run_check(name, _check(name)) if present else _missing(name)
        for finding in found:
            if present:
                print(finding.line, flush=True)
            append(lines, finding, common)
            failed |= finding.verdict == "failed"
    return failed


def _missing(name: str) -> Iterator[Finding]:
    """What the check would have found."""
    targets = [target for target in TARGETS if target.check == name]
    yield from (target.missing(NO_GPU) for target in targets)
    if not targets:
        yield Finding(name, "all of it", "not measured", detail=NO_GPU)


def _check(name: str) -> Check:
    module, _, function = CHECKS[name].partition(":")

    def check() -> Iterator[Finding]:
        # Imported late: what a machine lacks for one check is no reason not to run the others.
        yield from getattr(importlib.import_module(f"benches.gpu.{module}"), function)()

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
