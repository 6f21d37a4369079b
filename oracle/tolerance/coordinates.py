"""Tolerances of the corners of ground truth and of predictions (spec sections 3, 4 and 8a)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from oracle.tolerance.precision import Precision

# Roundings that a correct program may commit at each step, as multiples of the unit roundoff. Measured over some thousand batches, the
# reference and the twin stay within the intervals that follow from them (properties/tests/oracle/judge/test_assignment.py repeats the
# measurement).
PRODUCT_ROUNDINGS = 4.0  # Product with the bins, and their sum.
SOFTMAX_ROUNDINGS = 6.0  # Each probability: exponential, sum, quotient.
CORNER_ROUNDINGS = 1.5  # One subtraction.
TRUTH_ROUNDINGS = 2.0  # Each of: scaling the centre, scaling the size, adding the two.
# Coordinates that are multiples of this, up to that, are computed without any rounding in float32, whatever the order.
EXACT_QUANTUM, EXACT_LIMIT = 1 / 256, 2.0**14


class Decoded(NamedTuple):
    """Distances (..., 4) decoded from logits, and the numbers on which their rounding depends.

    Attributes:
        sides: left, top, right, bottom in grid units.
        spread: mean distance of the bins from the expectation, by which relative errors of the probabilities move it; 0 for R = 1.
        reach: the same, each bin times the distance of its logit from the largest: the argument of the exponential is rounded too.
    """

    sides: Tensor
    spread: Tensor
    reach: Tensor


def decoded(logits: Tensor, reg_max: int) -> Decoded:
    """Decodes distances (..., 4) from logits (..., 4R), in float64 [4]."""
    logits = logits.detach().double()
    if reg_max == 1:
        return Decoded(logits, torch.zeros_like(logits), torch.zeros_like(logits))
    bins = torch.arange(reg_max, dtype=torch.float64, device=logits.device)
    rows = logits.unflatten(-1, (4, reg_max))
    share = rows.softmax(-1)
    sides = (share * bins).sum(-1)
    away = share * (bins - sides[..., None]).abs()
    return Decoded(sides, away.sum(-1), (away * (rows.amax(-1, keepdim=True) - rows)).sum(-1))


def side_tolerance(decoded: Decoded, precision: Precision) -> Tensor:
    """Returns the tolerance of decoded distances (..., 4) in grid units: 0 for R = 1."""
    size = decoded.sides.abs()
    moved = precision.distance * (PRODUCT_ROUNDINGS * size * (decoded.spread > 0) + SOFTMAX_ROUNDINGS * decoded.spread)
    return moved + precision.core * decoded.reach


def predicted_corner_tolerance(decoded: Decoded, corners: Tensor, precision: Precision) -> Tensor:
    """Returns the tolerance of predicted corners (..., 4) in grid units."""
    return side_tolerance(decoded, precision) + CORNER_ROUNDINGS * precision.corner * (corners.abs() + decoded.sides.abs())


def truth_corner_tolerance(corners: Tensor, boxes: Tensor, image_size: tuple[int, int], roundoff: float) -> Tensor:
    """Returns the tolerance of pixel corners (N, 4) computed from the batch's boxes (N, 4), centre and size relative to the image.

    It is 0 where no order of scaling and adding rounds: a border through an anchor's centre is then decided.
    """
    height, width = image_size
    scaled = boxes.double().reshape(-1, 4) * boxes.new_tensor([width, height, width, height], dtype=torch.float64)
    centre, half = scaled[:, :2], scaled[:, 2:] / 2
    corners = corners.double()
    error = TRUTH_ROUNDINGS * roundoff * ((centre.abs() + half.abs()).repeat(1, 2) + corners.abs())
    quanta = corners / EXACT_QUANTUM
    exact = (quanta == quanta.floor()) & (corners.abs() < EXACT_LIMIT) & (corners == torch.cat([centre - half, centre + half], dim=1))
    return error.masked_fill(exact.all(1, keepdim=True), 0.0)
