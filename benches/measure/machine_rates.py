"""Rates of the machine that bound the speed of every implementation, measured in the same run.

Every implementation reads each prediction and writes its gradient, so these bytes divided by the bandwidth bound its time from below. On a
CPU the exponentials of the classification term give a second bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import torch

from benches.measure.case_files import PREDICTION, files

BIG = 64 << 20  # Elements; larger than any cache.
SMALL = 1 << 18  # Elements; fits a second-level cache.
REPEATS = 7
CALLS = 20  # Calls of a function on cached values in one measurement.


def machine_rates() -> dict[str, float]:
    """Returns bytes per second of a copy (read and written), and elements per second of functions on cached float32 values."""
    source, target = torch.rand(BIG), torch.empty(BIG)
    values, results = torch.rand(SMALL) + 0.5, torch.empty(SMALL)
    return {
        "copy_bytes_per_s": 2 * source.nbytes / _seconds(lambda: target.copy_(source)),
        "exp_per_s": SMALL / _seconds(lambda: torch.exp(values, out=results), CALLS),
        "log_per_s": SMALL / _seconds(lambda: torch.log(values, out=results), CALLS),
        "log1p_per_s": SMALL / _seconds(lambda: torch.log1p(values, out=results), CALLS),
    }


def _seconds(call: Callable[[], object], calls: int = 1) -> float:
    """Returns the seconds of one call: the minimum of several measurements, after one call that touches the memory."""
    call()
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        taken.append((time.perf_counter() - start) / calls)
    return min(taken)


def moved_bytes(case_folder: Path, itemsize: int) -> int:
    """Returns the bytes that a step must move: it reads the predictions and writes their gradients."""
    return 2 * itemsize * sum(prod(_shape(path)) for path in files(case_folder, PREDICTION).values())


def class_logits(case_folder: Path) -> int:
    """Returns the number of class logits: a step takes one exponential of each."""
    return prod(_shape(files(case_folder, PREDICTION)["scores"]))


def _shape(file: Path) -> tuple[int, ...]:
    return tuple(np.load(file, mmap_mode="r").shape)
