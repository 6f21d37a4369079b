"""The margins of an assignment's decisions: every candidate pair, with the intervals in which correct programs find its numbers.

Everything is float64, over the ragged list of possible candidate pairs of a batch. A program that computes in a working dtype has corners
with rounding errors; their effect on an overlap is found by moving each corner, so that kinks, crossings and degenerate boxes need no
formula. Two programs can disagree on a decision only where intervals overlap; :mod:`oracle.tolerance.intervals` has an example.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
        first_row: first row of the batch that belongs to each image, valid or not, by image.
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
    first_row: Mapping[int, int] = field(default_factory=dict)

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
    """The boxes and pairs of a batch of ``images`` B, with ``anchors`` A each.

    ``ranked``: the same pairs with other overlaps and metrics, which rank as they do but do not underflow; ``ties="stable"`` picks by them.
    """

    boxes: Boxes
    pairs: Pairs
    images: int
    anchors: int
    ranked: Pairs | None = None

    def lookup(self, cell: Ints, box: Ints) -> Ints:
        """Returns the index of the pair of each anchor and box (n,), or -1 where it is not a pair."""
        pairs, width = self.pairs, self.images * self.anchors
        if len(pairs) == 0:
            return np.full(len(cell), -1)
        keys, wanted = pairs.box * width + pairs.cell, box * width + cell
        at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        return np.where((keys[at] == wanted) & (box >= 0), at, -1)


@dataclass(frozen=True)
class PossiblePairs:
    """Possible candidate pairs of a batch, and what their numbers are computed from: P pairs.

    Attributes:
        exact: the definition.
        preds, batch: finite predictions, and targets, on the CPU.
        grid: the anchors.
        anchor_error: (A, 2) of the centres in the program's dtype, in cells.
        boxes: the valid and possibly valid boxes.
        precision: the program's unit roundoffs.
        box: (P,) index into ``boxes``.
        anchor: (P,) anchor within the image.
        border, border_tolerance: (P,) distance to the nearest side in pixels, and its tolerance.
    """

    exact: ExactCriterion
    preds: Preds
    batch: Batch
    grid: Grid
    anchor_error: Tensor
    boxes: Boxes
    precision: Precision
    box: Ints
    anchor: Ints
    border: Floats
    border_tolerance: Floats

    @property
    def image(self) -> Ints:
        """The image (P,) of each pair."""
        return self.boxes.image[self.box]


Interval = tuple[Floats, Floats, Floats]
"""Values (P,) and the ends of their intervals."""


class MarginSteps:
    """The steps of :func:`margins_of` that depend on the task; these are for upright boxes whose overlap is the CIoU."""

    def boxes(self, exact: ExactCriterion, truth: GroundTruth, batch: Batch, grid: Grid, precision: Precision) -> Boxes:
        """Returns the valid and possibly valid boxes of a batch [3]."""
        rounding = truth_corner_tolerance(truth.corners, batch["bboxes"], (grid.height, grid.width), precision.core)
        return boxes_of(truth, rounding, exact.validity(truth.corners), rounding.sum(1))

    def possible_pairs(
        self, exact: ExactCriterion, truth: GroundTruth, boxes: Boxes, grid: Grid, anchor_error: Tensor
    ) -> tuple[Ints, Ints, Floats, Floats]:
        """Returns box, anchor, border distance and its tolerance (each (P,)) of the possible candidate pairs, by box, then anchor [5.1]."""
        return _possible_pairs(boxes, _windows(truth.corners[boxes.row], boxes, exact.spec), grid, anchor_error, exact.spec)

    def predicted(self, preds: Preds, grid: Grid, boxes: Tensor, reg_max: int, precision: Precision) -> Tensor:
        """Returns the tolerance (B, A, K) of the predicted boxes (B, A, K) in grid units [4]."""
        sides = decoded(preds["boxes"].transpose(1, 2), reg_max)
        own = precision.evaluation * boxes.abs() + precision.smallest_score
        anchor_error = (grid.centres.to(precision.anchors).double() - grid.centres).abs()
        return predicted_corner_tolerance(sides, boxes, precision) + anchor_error.repeat(1, 2) + own

    def overlap(self, pairs: PossiblePairs) -> tuple[Floats, Floats, Floats]:
        """Returns the overlap of each pair and its interval (each (P,)) [5.2]."""
        (predicted, tolerance), boxes, spec = self.predicted_pairs(pairs), pairs.boxes, pairs.exact.spec
        truth = boxes.corners[pairs.box], boxes.tolerance[pairs.box]
        return overlap_interval(*truth, predicted.numpy(), tolerance.numpy(), spec.ciou_eps, pairs.precision.evaluation)

    def predicted_pairs(self, pairs: PossiblePairs) -> tuple[Tensor, Tensor]:
        """Returns the predicted corners of each pair in pixels, and their tolerance (each (P, 4)) [4]."""
        anchor = pairs.anchor
        sides = decoded(pairs.preds["boxes"].detach()[pairs.image, :, anchor], pairs.exact.spec.reg_max)
        corners = corners_of(sides.sides, pairs.grid.centres[anchor])
        tolerance = predicted_corner_tolerance(sides, corners, pairs.precision) + pairs.anchor_error[anchor].repeat(1, 2)
        strides = pairs.grid.strides[anchor, None]
        return corners * strides, tolerance * strides

    def ranks(self, pairs: PossiblePairs, overlap: Interval, logit: Floats) -> tuple[Interval, Interval] | None:
        """Returns overlaps and metrics by which ``ties="stable"`` ranks, if it does not rank by themselves; from class logits (P,)."""
        return None


_DETECTION = MarginSteps()


@torch.no_grad()
def margins_of(exact: ExactCriterion, preds: Preds, batch: Batch, precision: Precision, steps: MarginSteps = _DETECTION) -> Margins:
    """Returns the boxes and pairs of a batch, with the intervals of a program of a given precision.

    Args:
        exact: the definition, of which grid and prepared truth are used.
        preds: finite predictions.
        batch: the targets.
        precision: the program's unit roundoffs.
        steps: the task's.
    """
    grid, truth = exact.grid(preds), exact.truth(preds, batch)
    anchor_error = (grid.centres.to(precision.anchors).double() - grid.centres).abs()
    boxes = steps.boxes(exact, truth, batch, grid, precision)
    box, anchor, border, tolerance = steps.possible_pairs(exact, truth, boxes, grid, anchor_error)
    possible = PossiblePairs(exact, preds, batch, grid, anchor_error, boxes, precision, box, anchor, border, tolerance)
    overlap = steps.overlap(possible)
    logit = preds["scores"].detach()[possible.image, boxes.label[box], anchor].double().numpy()
    metric, ranks = metric_interval(logit, overlap, exact.spec, precision), steps.ranks(possible, overlap, logit)
    inside = (border > tolerance) & boxes.valid[box] & ~boxes.validity_open[box]
    anchors = len(grid.centres)
    common = box, possible.image * anchors + anchor, border, tolerance, inside
    ranked = None if ranks is None else Pairs(*common, *ranks[0], *ranks[1])
    return Margins(boxes, Pairs(*common, *overlap, *metric), len(preds["boxes"]), anchors, ranked)


def boxes_of(truth: GroundTruth, rounding: Tensor, validity: Tensor, validity_rounding: Tensor) -> Boxes:
    """Returns the valid and possibly valid boxes of a batch [3].

    Args:
        truth: prepared rows.
        rounding: (N, K) tolerance of their numbers.
        validity: (N,) number that is > 0 where a row is valid.
        validity_rounding: (N,) its tolerance.
    """
    image, label, corners, tolerance = truth.image.numpy(), truth.label.numpy(), truth.corners.double().numpy(), rounding.numpy()
    image_of_rows = image
    total, of_total = validity.double().numpy(), validity_rounding.numpy()
    order = np.argsort(image, kind="stable")
    row = order[total[order] > -np.maximum(of_total[order], 0)]
    row = row[(total[row] > 0) | (of_total[row] > 0)]
    image, corners = image[row], corners[row]
    # Boxes with equal corners have equal overlaps, to the bit, in any program; the lowest index wins and the decision is closed [9].
    first_twin = first_of_equals(np.column_stack([image, corners]))
    return Boxes(
        row=row,
        image=image,
        label=label[row],
        corners=corners,
        tolerance=tolerance[row],
        first_twin=first_twin,
        shadowed=first_of_equals(np.column_stack([first_twin, label[row]])) < np.arange(len(row)),
        valid=total[row] > 0,
        validity_open=np.abs(total[row]) < of_total[row],
        first_row=dict(zip(image_of_rows[order[::-1]].tolist(), order[::-1].tolist(), strict=True)),
    )


def first_of_equals(rows: NDArray[Any]) -> Ints:
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
