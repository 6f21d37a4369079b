"""Hunts in several processes at once: a module of its own, because a new process cannot import what it needs from a command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from properties.selfcheck.planted_faults import CATALOGUE
from properties.selfcheck.planted_faults.hunt import Catch, hunt, shares


def hunt_in(processes: int, numbers: Sequence[int], scale: float, run_seed: int) -> list[Catch]:
    """What became of the catalogue's faults of these numbers, shared out among processes."""
    parts = [part for start in range(processes) if (part := numbers[start::processes])]
    with ProcessPoolExecutor(len(parts), mp_context=get_context("spawn")) as pool:
        work = [pool.submit(_hunt, part, scale, run_seed) for part in parts]
        return [catch for done in work for catch in done.result()]


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _hunt(numbers: Sequence[int], scale: float, run_seed: int) -> list[Catch]:
    torch.set_num_threads(1)  # The processes share the cores.
    return hunt([CATALOGUE[n] for n in numbers], shares(scale), run_seed, _tell)


def _tell(catch: Catch) -> None:
    say(f"caught after {catch.examples:>4} ({catch.setting}): {catch.fault} ({catch.mode}), by {catch.stage}, {catch.quantity}")
