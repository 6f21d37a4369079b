"""How decided is each decision of an assignment: every candidate pair with intervals in which a correct program may find its numbers.

Everything is float64, over the ragged list of pairs of a whole batch that can be candidates at all. A program that computes in a working
dtype sees corners that are off by some roundings; what that does to an overlap is found by moving each corner and looking, so that kinks,
crossings and degenerate boxes need no formula. Two programs may then disagree on a decision only where their intervals overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.contract.contender import Batch, Preds
from oracle.definition.criterion import ExactCriterion, Grid, GroundTruth
from oracle.definition.formulas import border_distance, corners_of, lengthened
from oracle.tolerance.coordinates import decoded, predicted_corner_tolerance, truth_corner_tolerance
from oracle.tolerance.precision import Precision
from twinloss import LossSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Roundings that a correct program may commit, as multiples of the unit roundoff; those of corners are in
# :mod:`oracle.tolerance.coordinates`.
OVERLAP_ROUNDINGS = 4.0  # Of the overlap's own expressions, once its corners are given.
SCORE_ROUNDINGS = 3.0  # Sigmoid and power.
WINDOW_ROUNDINGS = 1.5  # Of a lengthened box's corners, relative to the rounding of its own.
_CHUNK = 64  # Boxes at a time: a dense (boxes, A) matrix of a crowded batch would take hundreds of megabytes.


@dataclass(frozen=True)
class Boxes:
    """Ground truth that is valid, or might be within rounding, in order of image, then arrival: G boxes.

    Attributes:
        row: (G,) row of the batch.
        image: (G,) image.
        label: (G,) class.
        corners: (G, 4) pixels.
        tolerance: (G, 4) rounding of the corners in pixels.
        first_twin: (G,) lowest index of a box of the same image with the same corners, itself when there is no other.
        shadowed: (G,) whether a box of the same image, corners and class comes before it: that one takes whatever both pick.
        valid: (G,) whether the row counts in exact arithmetic.
        validity_open: (G,) whether rounding can tip that.
    """

    row: Ints
    image: Ints
    label: Ints
    corners: Floats
    tolerance: Floats
    first_twin: Ints
    shadowed: Bools
    valid: Bools
    validity_open: Bools


@dataclass(frozen=True)
class Pairs:
    """Pairs of a box and an anchor of its image that are candidates or might be within rounding, sorted by box, then anchor: P pairs.

    Attributes:
        box: (P,) index into :class:`Boxes`.
        cell: (P,) image times A plus anchor: the anchor's index in the batch.
        border: (P,) distance to the nearest side in pixels less epsilon: positive strictly inside.
        border_tolerance: (P,) rounding of that distance.
        inside: (P,) whether the pair is a candidate in every correct program.
        overlap, overlap_low, overlap_high: (P,) clamped CIoU, and the interval it may be found in.
        metric, metric_low, metric_high: (P,) alignment metric, likewise; ``metric_low`` is 0 where the metric may underflow.
    """

    box: Ints
    cell: Ints
    border: Floats
    border_tolerance: Floats
    inside: Bools
    overlap: Floats
    overlap_low: Floats
    overlap_high: Floats
    metric: Floats
    metric_low: Floats
    metric_high: Floats

    def __len__(self) -> int:
        return len(self.box)


@dataclass(frozen=True)
class Margins:
    """The boxes and pairs of a batch: ``boxes``, ``pairs``; ``images`` B and ``anchors`` A give the shape of what is held."""

    boxes: Boxes
    pairs: Pairs
    images: int
    anchors: int


def measure(exact: ExactCriterion, preds: Preds, batch: Batch, precision: Precision) -> Margins:
    """Boxes and pairs of a batch, with the intervals of a program that computes in ``precision``.

    Args:
        exact: the definition; of its answers the grid, the prepared truth and the decoded distances are used.
        preds: ``boxes`` (B, 4R, A) and ``scores`` (B, C, A) logits, finite; ``feats``.
        batch: the targets.
        arithmetic: unit roundoffs.
    """
    spec = exact.spec
    with torch.no_grad():
        grid, truth = exact.grid(preds), exact.truth(preds, batch)
        anchor_error = (grid.centres.to(precision.anchors).double() - grid.centres).abs()
        boxes = boxes_of(truth, truth_corner_tolerance(truth.corners, batch["bboxes"], (grid.height, grid.width), precision.core))
        windows = _windows(truth.corners[boxes.row], boxes, spec)
        box, anchor, border, tolerance = _possible_pairs(boxes, windows, grid, anchor_error, spec)
        image, label = boxes.image[box], boxes.label[box]
        logit = preds["scores"].detach()[image, label, anchor].double().numpy()
        sides = decoded(preds["boxes"].detach()[image, :, anchor], spec.reg_max)
        predicted = corners_of(sides.sides, grid.centres[anchor])
        predicted_tolerance = predicted_corner_tolerance(sides, predicted, precision) + anchor_error[anchor].repeat(1, 2)
        scale = grid.strides[anchor, None]
    images, anchors = len(preds["boxes"]), len(grid.centres)
    overlap, low, high = overlap_interval(
        boxes.corners[box],
        boxes.tolerance[box],
        (predicted * scale).numpy(),
        (predicted_tolerance * scale).numpy(),
        spec.ciou_eps,
        precision.evaluation,
    )
    metric, metric_low, metric_high = metric_interval(logit, (overlap, low, high), spec, precision)
    inside = (border > tolerance) & boxes.valid[box] & ~boxes.validity_open[box]
    cell = boxes.image[box] * anchors + anchor
    pairs = Pairs(box, cell, border, tolerance, inside, overlap, low, high, metric, metric_low, metric_high)
    return Margins(boxes, pairs, images, anchors)


def boxes_of(truth: GroundTruth, rounding: Tensor) -> Boxes:
    """Valid and possibly valid boxes of a batch from its prepared rows and the rounding (N, 4) of their corners [3]."""
    image, label, corners, tolerance = truth.image.numpy(), truth.label.numpy(), truth.corners.double().numpy(), rounding.numpy()
    total, slack = truth.corners.sum(1).double().numpy(), tolerance.sum(1)
    order = np.argsort(image, kind="stable")
    row = order[total[order] > -np.maximum(slack[order], 0)]
    row = row[(total[row] > 0) | (slack[row] > 0)]
    image, corners = image[row], corners[row]
    # Identical boxes have equal overlaps to the bit in any program, so that the lowest index wins: never an open question [9].
    first_twin = _first_of_equals(np.column_stack([image, corners]))
    return Boxes(
        row=row,
        image=image,
        label=label[row],
        corners=corners,
        tolerance=tolerance[row],
        first_twin=first_twin,
        shadowed=_first_of_equals(np.column_stack([first_twin, label[row]])) < np.arange(len(row)),
        valid=total[row] > 0,
        validity_open=np.abs(total[row]) < slack[row],
    )


def _first_of_equals(rows: NDArray[Any]) -> Ints:
    """Index of the first row equal to each row (n,)."""
    if len(rows) == 0:
        return np.zeros(0, dtype=np.int64)
    _, first, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first[group.reshape(-1)]


def _windows(corners: Tensor, boxes: Boxes, spec: LossSpec) -> tuple[Tensor, Tensor]:
    """The least and the largest window (G, 4) that each box can have [5.1].

    They differ where an older definition makes a short side jump to ``shortest_side`` and rounding decides whether it is short.
    """
    below = spec.lengthened_below
    if not 0 < below < spec.shortest_side:
        window = lengthened(corners, spec.shortest_side, below).double()
        return window, window
    unsure = float(WINDOW_ROUNDINGS * boxes.tolerance.max(initial=0))
    least, largest = (lengthened(corners, spec.shortest_side, below + shift).double() for shift in (-unsure, unsure))
    return least, largest


def _possible_pairs(
    boxes: Boxes, windows: tuple[Tensor, Tensor], grid: Grid, anchor_error: Tensor, spec: LossSpec
) -> tuple[Ints, Ints, Floats, Floats]:
    """Box, anchor, border distance and its tolerance (each (P,)) of pairs that can be candidates of boxes with windows (G, 4) [5.1].

    Of a box's two windows the first is the least that it can have, and the second the largest: a pair between them is on the border.
    """
    # Whoever lengthens a box, or might have, computes its corners once more, from centre and size.
    error = boxes.tolerance.max(1, initial=0) * WINDOW_ROUNDINGS
    shift = (anchor_error.amax(1) * grid.strides).numpy()
    pixels = grid.centres * grid.strides[:, None]
    found = []
    for start in range(0, len(windows[0]), _CHUNK):
        some = slice(start, start + _CHUNK)
        border = border_distance(windows[1][some], pixels).numpy() - spec.assign_eps
        if windows[0] is not windows[1]:
            border[(border_distance(windows[0][some], pixels).numpy() <= spec.assign_eps) & (border > 0)] = 0
        tolerance = error[some, None] + shift
        box, anchor = np.nonzero(border > -tolerance)
        found.append((box + start, anchor, border[box, anchor], tolerance[box, anchor]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
    return tuple(np.concatenate(column) for column in zip(*found, strict=True))  # type: ignore[return-value]


def overlap_interval(
    truth: Floats, truth_error: Floats, predicted: Floats, predicted_error: Floats, eps: float, roundoff: float
) -> tuple[Floats, Floats, Floats]:
    """Clamped CIoU (P,) of boxes (P, 4), and the interval that corners off by the given errors (P, 4) allow."""
    corners, errors = np.concatenate([truth, predicted], axis=-1), np.concatenate([truth_error, predicted_error], axis=-1)
    shifts = np.concatenate([np.zeros((1, 8)), np.eye(8), -np.eye(8)])[:, None, :] * errors
    moved = corners + shifts
    iou, penalty = ciou_parts(moved[..., :4], moved[..., 4:], eps)
    overlaps = iou - penalty
    overlap = overlaps[0]
    change = np.abs(overlaps[1:] - overlap)
    # A degenerate box that some rounding makes undefined may have any overlap.
    off = np.nan_to_num(np.maximum(change[:8], change[8:]), nan=np.inf).sum(0) + OVERLAP_ROUNDINGS * roundoff * (iou[0] + penalty[0])
    return np.maximum(overlap, 0), np.maximum(overlap - off, 0), np.maximum(overlap + off, 0)


def ciou_parts(a: Floats, b: Floats, eps: float) -> tuple[Floats, Floats]:
    """IoU and what CIoU subtracts from it, each (...), of boxes (..., 4) as corners [6]."""
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
    """Alignment metric (P,) and its interval, from class logits (P,) and the overlap's interval [5.3]."""
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
