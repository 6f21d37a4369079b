"""Hunts in several processes at once: a module of its own, because a new process cannot import what it needs from a command."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from oracle.tools.progress import Notes, Progress
from properties.selfcheck.planted_faults import CATALOGUE
from properties.selfcheck.planted_faults.hunt import Catch, hunt, kind, shares


def hunt_in(processes: int, numbers: Sequence[int], scale: float, run_seed: int, *, quiet: bool = False) -> list[Catch]:
    """What became of the catalogue's faults of these numbers, shared out among processes; meanwhile it shows how far they are."""
    parts = [part for start in range(processes) if (part := numbers[start::processes])]
    planned = Counter[str]()
    for share in shares(scale):
        planned[kind(share)] += share.examples * len(parts)
    progress = Progress("batches, each put to every fault at large", found=("caught", "none caught"), quiet=quiet, at_most=True)
    with tempfile.TemporaryDirectory(prefix="progress-") as folder, progress:
        progress.plan(planned)
        progress.follow(Path(folder))
        with ProcessPoolExecutor(len(parts), mp_context=get_context("spawn")) as pool:
            work = [pool.submit(_hunt, part, scale, run_seed, Notes(Path(folder, f"{n}.jsonl"))) for n, part in enumerate(parts)]
            return [catch for done in work for catch in done.result()]


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _hunt(numbers: Sequence[int], scale: float, run_seed: int, notes: Notes) -> list[Catch]:
    torch.set_num_threads(1)  # The processes share the cores.
    notes.begin()
    return hunt([CATALOGUE[n] for n in numbers], shares(scale), run_seed, notes)
