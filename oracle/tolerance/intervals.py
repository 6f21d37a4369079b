"""Intervals in which a correct program finds overlaps and alignment metrics (spec sections 5.2, 5.3 and 6).

Example: a truth of 24 × 8 pixels and three predictions of width 24 with the same score. In float32 the first two metrics may be in either
order, because their intervals overlap; the third is larger than the first in every program.

>>> from oracle.cases.case import Setting
>>> from oracle.tolerance.precision import precision_of
>>> u, truth = 2.0**-24, np.array([[0.0, 0, 24, 8]])
>>> predicted = np.array([[0.0, 0, 24, height] for height in (7, 7.000001, 7.00001)])
>>> overlap = overlap_interval(truth.repeat(3, 0), truth.repeat(3, 0) * u, predicted, predicted * u, 1e-7, u)
>>> float32 = precision_of(Setting("float32"), "float32")
>>> metric, low, high = metric_interval(np.full(3, 2.0), overlap, LossSpec(num_classes=1), float32)
>>> [f"{low:.6f} to {high:.6f}" for low, high in zip(low, high, strict=True)]
['0.420062 to 0.420064', '0.420062 to 0.420065', '0.420065 to 0.420068']
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oracle.tolerance.precision import Precision
from twinloss import LossSpec

Floats = NDArray[np.float64]

# Roundings that a correct program may commit, as multiples of the unit roundoff; those of corners are in
# :mod:`oracle.tolerance.coordinates`.
OVERLAP_ROUNDINGS = 4.0  # Of the overlap's own expressions, for given corners.
SCORE_ROUNDINGS = 3.0  # Sigmoid and power.


def overlap_interval(
    truth: Floats, truth_error: Floats, predicted: Floats, predicted_error: Floats, eps: float, roundoff: float
) -> tuple[Floats, Floats, Floats]:
    """Returns the clamped CIoU (P,) of boxes (P, 4), and its interval for errors (P, 4) of the corners."""
    corners, errors = np.concatenate([truth, predicted], axis=-1), np.concatenate([truth_error, predicted_error], axis=-1)
    shifts = np.concatenate([np.zeros((1, 8)), np.eye(8), -np.eye(8)])[:, None, :] * errors
    moved = corners + shifts
    iou, penalty = ciou_parts(moved[..., :4], moved[..., 4:], eps)
    overlaps = iou - penalty
    overlap = overlaps[0]
    change = np.abs(overlaps[1:] - overlap)
    # A degenerate box whose overlap is undefined for some rounding may have any overlap.
    off = np.nan_to_num(np.maximum(change[:8], change[8:]), nan=np.inf).sum(0) + OVERLAP_ROUNDINGS * roundoff * (iou[0] + penalty[0])
    return np.maximum(overlap, 0), np.maximum(overlap - off, 0), np.maximum(overlap + off, 0)


def ciou_parts(a: Floats, b: Floats, eps: float) -> tuple[Floats, Floats]:
    """Returns the IoU and the penalty that CIoU subtracts from it, each (...), of boxes (..., 4) as corners [6]."""
    ax1, ay1, ax2, ay2 = np.moveaxis(a, -1, 0)
    bx1, by1, bx2, by2 = np.moveaxis(b, -1, 0)
    aw, ah, bw, bh = ax2 - ax1, ay2 - ay1 + eps, bx2 - bx1, by2 - by1 + eps
    inner_w, inner_h = np.minimum(ax2, bx2) - np.maximum(ax1, bx1), np.minimum(ay2, by2) - np.maximum(ay1, by1)
    intersection = np.maximum(inner_w, 0) * np.maximum(inner_h, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = intersection / (aw * ah + bw * bh - intersection + eps)
        angle = np.arctan(bw / bh) - np.arctan(aw / ah)
    enclosing_w, enclosing_h = np.maximum(ax2, bx2) - np.minimum(ax1, bx1), np.maximum(ay2, by2) - np.minimum(ay1, by1)
    diagonal = enclosing_w**2 + enclosing_h**2 + eps
    distance = ((bx1 + bx2 - ax1 - ax2) ** 2 + (by1 + by2 - ay1 - ay2) ** 2) / 4
    v = 4 / np.pi**2 * angle**2
    return iou, distance / diagonal + v * v / (1 - iou + v + eps)


def metric_interval(
    logit: Floats, overlap: tuple[Floats, Floats, Floats], spec: LossSpec, precision: Precision
) -> tuple[Floats, Floats, Floats]:
    """Returns the alignment metric (P,) and its interval, from class logits (P,) and the overlap's interval [5.3]."""
    value, low, high = overlap
    with np.errstate(over="ignore", under="ignore"):
        p = np.where(logit >= 0, 1 / (1 + np.exp(-np.abs(logit))), np.exp(-np.abs(logit)) / (1 + np.exp(-np.abs(logit))))
        share = SCORE_ROUNDINGS * max(precision.score, precision.flat)
        p_low, p_high = p * (1 - share) - precision.smallest_score, np.minimum(p * (1 + share) + precision.smallest_score, 1)
        p_low = np.where(p_low < precision.smallest_score, 0, p_low)
        # The power is rounded once more, in the dtype of the scores; the product in that of the targets.
        relative = max(precision.score, precision.flat) + SCORE_ROUNDINGS * precision.evaluation
        metric = p**spec.alpha * value**spec.beta
        power_low, power_high = low**spec.beta, high**spec.beta
        metric_low = p_low**spec.alpha * power_low * (1 - relative)
        metric_high = p_high**spec.alpha * power_high * (1 + relative)
    lost = (power_low < precision.smallest_core) | (metric_low < precision.smallest_core)
    return metric, np.where(lost, 0, metric_low), np.maximum(metric_high, metric)


def nth_largest(values: Floats, group: NDArray[np.int64], groups: int, n: int, otherwise: float) -> Floats:
    """Returns the n-th largest value of each group (groups,), from 1; ``otherwise`` where a group has fewer."""
    order = np.lexsort((-values, group))
    counts = np.bincount(group, minlength=groups)
    starts = np.cumsum(counts) - counts
    answer = np.full(groups, otherwise)
    enough = counts >= n
    answer[enough] = values[order][starts[enough] + n - 1]
    return answer
