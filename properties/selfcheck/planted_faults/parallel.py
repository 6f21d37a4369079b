"""Runs parts of the catalogue in several processes. It is a separate module because a new process cannot import from ``__main__``."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from oracle.tools.progress import Progress, ProgressFile
from properties.selfcheck.planted_faults import CATALOGUE, Fault
from properties.selfcheck.planted_faults.run_catalogue import FaultResult, kind_of, run_catalogue, shares


def run_in_processes(processes: int, numbers: Sequence[int], scale: float, run_seed: int, *, quiet: bool = False) -> list[FaultResult]:
    """Returns the results of the catalogue's faults at these positions, computed by several processes, and shows the progress."""
    parts = [part for start in range(processes) if (part := numbers[start::processes])]
    planned = Counter[str]()
    for task in (task for part in parts for task in _by_task(part)):
        for share in shares(scale, task):
            planned[kind_of(share)] += share.examples
    progress = Progress(
        "batches, each compared with every fault not yet caught", found=("caught", "none caught"), quiet=quiet, at_most=True
    )
    with tempfile.TemporaryDirectory(prefix="progress-") as folder, progress:
        progress.plan(planned)
        progress.follow(Path(folder))
        with ProcessPoolExecutor(len(parts), mp_context=get_context("spawn")) as pool:
            work = [pool.submit(_run, part, scale, run_seed, ProgressFile(Path(folder, f"{n}.jsonl"))) for n, part in enumerate(parts)]
            return [result for done in work for result in done.result()]


def print_line(text: str) -> None:
    """Print a line without buffering."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _run(numbers: Sequence[int], scale: float, run_seed: int, notes: ProgressFile) -> list[FaultResult]:
    torch.set_num_threads(1)  # The processes share the cores.
    notes.begin()
    return [result for task, faults in _by_task(numbers).items() for result in run_catalogue(faults, shares(scale, task), run_seed, notes)]


def _by_task(numbers: Sequence[int]) -> dict[str, list[Fault]]:
    """Returns the catalogue's faults at these positions by their task."""
    found: dict[str, list[Fault]] = {}
    for number in numbers:
        found.setdefault(CATALOGUE[number].task, []).append(CATALOGUE[number])
    return found
