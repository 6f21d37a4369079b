"""The margins of an assignment's decisions: every candidate pair, with the intervals in which correct programs find its numbers.

Everything is float64, over the ragged list of possible candidate pairs of a batch. A program that computes in a working dtype has corners
with rounding errors; their effect on an overlap is found by moving each corner, so that kinks, crossings and degenerate boxes need no
formula. Two programs can disagree on a decision only where intervals overlap; :mod:`oracle.tolerance.intervals` has an example.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.contract.contender import Batch, Preds
from oracle.definition.assignment_trace import UNASSIGNED
from oracle.definition.criterion import ExactCriterion, Grid, GroundTruth
from oracle.definition.formulas import border_distance, corners_of, lengthened
from oracle.tolerance.coordinates import decoded, predicted_corner_tolerance, truth_corner_tolerance
from oracle.tolerance.intervals import Floats, metric_interval, overlap_interval
from oracle.tolerance.precision import Precision
from twinloss import LossSpec

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

WINDOW_ROUNDINGS = 1.5  # Of a lengthened box's corners, relative to the rounding of its own.
_CHUNK = 64  # Boxes at a time: a dense (boxes, A) matrix of a crowded batch takes hundreds of megabytes.


@dataclass(frozen=True)
class Boxes:
    """Boxes of ground truth that are valid, or may be within rounding, in order of image, then arrival: G boxes.

    Attributes:
        row: (G,) row of the batch.
        image: (G,) image.
        label: (G,) class.
        corners: (G, 4) pixels.
        tolerance: (G, 4) of the corners, in pixels.
        first_twin: (G,) lowest index of a box of the same image with the same corners, itself when there is no other.
        shadowed: (G,) whether a box of the same image, corners and class comes before it and gets all anchors that both pick.
        valid: (G,) whether the row is valid by the definition.
        validity_open: (G,) whether rounding can change that.
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

    def index_of(self, rows: Iterable[int]) -> Ints:
        """Returns the index (n,) of the box of each row of the batch, or ``UNASSIGNED`` for a row that is not a valid box."""
        known = {row: g for g, row in enumerate(self.row.tolist())}
        return np.array([known.get(int(row), UNASSIGNED) for row in rows], dtype=np.int64)


@dataclass(frozen=True)
class Pairs:
    """Pairs of a box and an anchor of its image that are candidates, or may be within rounding, sorted by box, then anchor: P pairs.

    Attributes:
        box: (P,) index into :class:`Boxes`.
        cell: (P,) image times A plus anchor: the anchor's index in the batch.
        border: (P,) distance to the nearest side in pixels less epsilon: positive strictly inside.
        border_tolerance: (P,) tolerance of that distance.
        inside: (P,) whether the pair is a candidate in every correct program.
        overlap, overlap_low, overlap_high: (P,) clamped CIoU and its interval.
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
    """The boxes and pairs of a batch of ``images`` B, with ``anchors`` A each."""

    boxes: Boxes
    pairs: Pairs
    images: int
    anchors: int

    def lookup(self, cell: Ints, box: Ints) -> Ints:
        """Returns the index of the pair of each anchor and box (n,), or -1 where it is not a pair."""
        pairs, width = self.pairs, self.images * self.anchors
        if len(pairs) == 0:
            return np.full(len(cell), -1)
        keys, wanted = pairs.box * width + pairs.cell, box * width + cell
        at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        return np.where((keys[at] == wanted) & (box >= 0), at, -1)


def margins_of(exact: ExactCriterion, preds: Preds, batch: Batch, precision: Precision) -> Margins:
    """Returns the boxes and pairs of a batch, with the intervals of a program of a given precision.

    Args:
        exact: the definition, of which grid and prepared truth are used.
        preds: ``boxes`` (B, 4R, A) and ``scores`` (B, C, A) logits, finite; ``feats``.
        batch: the targets.
        precision: the program's unit roundoffs.
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
    """Returns the valid and possibly valid boxes of a batch, from its prepared rows and the tolerance (N, 4) of their corners [3]."""
    image, label, corners, tolerance = truth.image.numpy(), truth.label.numpy(), truth.corners.double().numpy(), rounding.numpy()
    total, of_total = truth.corners.sum(1).double().numpy(), tolerance.sum(1)
    order = np.argsort(image, kind="stable")
    row = order[total[order] > -np.maximum(of_total[order], 0)]
    row = row[(total[row] > 0) | (of_total[row] > 0)]
    image, corners = image[row], corners[row]
    # Boxes with equal corners have equal overlaps, to the bit, in any program; the lowest index wins and the decision is closed [9].
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
        validity_open=np.abs(total[row]) < of_total[row],
    )


def _first_of_equals(rows: NDArray[Any]) -> Ints:
    """Returns the index of the first row equal to each row (n,)."""
    if len(rows) == 0:
        return np.zeros(0, dtype=np.int64)
    _, first, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first[group.reshape(-1)]


def _windows(corners: Tensor, boxes: Boxes, spec: LossSpec) -> tuple[Tensor, Tensor]:
    """Returns the least and the largest window (G, 4) that each box can have [5.1].

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
    """Returns box, anchor, border distance and its tolerance (each (P,)) of the possible candidate pairs [5.1].

    ``windows``: the least and the largest window (G, 4) of each box; a pair between them lies on the border.
    """
    # A program that lengthens boxes computes corners once more, from centre and size, which adds a rounding.
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
