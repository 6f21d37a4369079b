"""Intervals of overlaps hold what float32 makes of them, and are not far too wide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from oracle.definition.formulas import ciou
from oracle.tolerance.intervals import ciou_parts, overlap_interval


def test_overlap_is_the_definitions() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.sort(rng.uniform(-50, 600, (500, 2, 2)), axis=1).reshape(500, 4) for _ in range(2))
    b[:100] = a[:100] + rng.normal(0, 1e-3, (100, 4))
    iou, penalty = ciou_parts(a, b, 1e-7)
    np.testing.assert_allclose(iou - penalty, ciou(torch.from_numpy(a), torch.from_numpy(b), 1e-7).numpy(), rtol=1e-12, atol=1e-14)


def float32_ciou(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return ciou(torch.from_numpy(a).float(), torch.from_numpy(b).float(), 1e-7).clamp(min=0).double().numpy()


@pytest.mark.parametrize("size", [4.0, 30.0, 300.0])
def test_intervals_hold_what_float32_makes_of_an_overlap(size: float) -> None:
    rng = np.random.default_rng(int(size))
    centres, sides = rng.uniform(0, 640, (4000, 2)), rng.uniform(0.2, 1, (4000, 2)) * size
    a = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    b = a + rng.normal(0, 0.1, (4000, 4)) * size * rng.choice([1, 1e-3, 0], (4000, 1))
    off_a, off_b = (2.0**-24 * np.abs(x) for x in (a, b))
    overlap, low, high = overlap_interval(a, off_a, b, off_b, 1e-7, 2.0**-24)
    found = float32_ciou(a, b)
    assert (found >= low).all()
    assert (found <= high).all()
    used = np.abs(found - overlap) / np.maximum(high - overlap, 1e-300)
    assert np.quantile(used, 0.99) > 0.1  # An interval that is far too wide would excuse what is wrong.
