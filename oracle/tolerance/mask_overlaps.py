"""Intervals of the mask-aware assignment's overlaps (segmentation spec sections 3 and 9).

A pixel of a predicted mask is open where its logit is within rounding of 0, or a border of the predicted box within rounding of a whole
number. A pair is open to preselection where the intervals of its number q and of the 3K-th overlap.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from oracle.contract.contender import Batch
from oracle.definition.criterion import ExactCriterion, Grid, GroundTruth
from oracle.definition.mask_formulas import size_of
from oracle.definition.segmentation import ExactSegmentation, MaskInputs
from oracle.tolerance.intervals import Floats, metric_interval, nth_largest
from oracle.tolerance.margins import Bools, Boxes, Ints, MarginSteps, PossiblePairs
from oracle.tolerance.mask_crops import BORDER_ROUNDINGS, crops
from oracle.tolerance.precision import Precision

Interval = tuple[Floats, Floats, Floats]

PRODUCT_ROUNDINGS = 3.0  # Of each part of a product of coefficients and prototypes: its two factors and itself.
COUNT_ROUNDINGS = 4.0  # Of the quotient of counts, and of the mean of the two overlaps.


class SegmentMargins(MarginSteps):
    """Margins of the segmentation loss: those of detection, or, with the mask-aware assignment, of its overlap."""

    def boxes(self, exact: ExactCriterion, truth: GroundTruth, batch: Batch, grid: Grid, precision: Precision) -> Boxes:
        """Returns the valid and possibly valid boxes; with the mask-aware assignment boxes with equal corners have unequal overlaps."""
        boxes = super().boxes(exact, truth, batch, grid, precision)
        if not _aware(exact):
            return boxes
        return dataclasses.replace(boxes, first_twin=np.arange(len(boxes.row)), shadowed=np.zeros(len(boxes.row), dtype=bool))

    def overlap(self, pairs: PossiblePairs) -> Interval:
        """Returns the overlap of each pair and its interval (each (P,)): with the mask-aware assignment (c + mu) / 2 [3]."""
        ciou = super().overlap(pairs)
        if not _aware(pairs.exact) or len(pairs.box) == 0:
            return ciou
        value, low, high = self._mask_ious(pairs, ciou)
        off = COUNT_ROUNDINGS * pairs.precision.evaluation
        overlap = (ciou[0] + value) / 2
        return overlap, np.minimum((ciou[1] + low) / 2 * (1 - off), overlap), np.maximum((ciou[2] + high) / 2 * (1 + off), overlap)

    def _mask_ious(self, pairs: PossiblePairs, ciou: Interval) -> Interval:
        """Returns mu (P,) and its interval, 0 for pairs that are not preselected."""
        exact = pairs.exact
        assert isinstance(exact, ExactSegmentation)
        masks, (predicted, tolerance) = exact.mask_inputs(pairs.preds, pairs.batch), self.predicted_pairs(pairs)
        chosen, certain, possible = _preselected(exact, pairs, ciou)
        found = [np.zeros(len(pairs.box)) for _ in range(3)]
        scale = masks.prototypes.shape[2] / pairs.grid.height
        for box in np.unique(pairs.box[possible]):
            at = np.flatnonzero((pairs.box == box) & possible)
            image, row = int(pairs.boxes.image[box]), int(pairs.boxes.row[box])
            parts = _mask_ious(masks, image, row, pairs.anchor[at], predicted[at] * scale, tolerance[at] * scale, pairs.precision)
            for whole, part in zip(found, parts, strict=True):
                whole[at] = part
        value, low, high = found
        return value * chosen, low * certain, high


def _aware(exact: ExactCriterion) -> bool:
    return isinstance(exact, ExactSegmentation) and exact.spec.mask_aware


def product_tolerance(absolute: Tensor, prototypes: int, precision: Precision) -> Tensor:
    """Returns the tolerance of products of coefficients and prototypes, given the products of their magnitudes."""
    return absolute * (PRODUCT_ROUNDINGS + math.log2(prototypes + 1)) * precision.product


def _preselected(exact: ExactSegmentation, pairs: PossiblePairs, ciou: Interval) -> tuple[Bools, Bools, Bools]:
    """Returns the pairs (P,) that the definition preselects, those that every correct program does, and those that some does [3.1]."""
    spec, boxes, precision, anchors = exact.spec, pairs.boxes, pairs.precision, len(pairs.grid.centres)
    logit = pairs.preds["scores"].detach()[pairs.image, boxes.label[pairs.box], pairs.anchor].double().numpy()
    metric, low, high = metric_interval(logit, ciou, spec, precision)
    candidate, valid = pairs.border > 0, boxes.valid[pairs.box]
    inside = (pairs.border > pairs.border_tolerance) & valid & ~boxes.validity_open[pairs.box]
    groups, most = len(boxes.row), min(3 * spec.topk, anchors)
    q = np.zeros((groups, anchors))
    q[pairs.box[candidate], pairs.anchor[candidate]] = metric[candidate] + spec.assign_eps
    chosen = np.zeros((groups, anchors), dtype=bool)
    for box, row in enumerate(q):
        chosen[box, exact.largest(torch.from_numpy(row), most).numpy()] = True
    preselected = chosen[pairs.box, pairs.anchor] & candidate
    # The sum with epsilon is rounded: numbers far below epsilon tie with 0.
    off = 2 * precision.evaluation * spec.assign_eps
    low, high = low * (1 - 2 * precision.evaluation) - off, high * (1 + 2 * precision.evaluation) + off
    bar = nth_largest(low[inside], pairs.box[inside], groups, most, -1.0)
    danger = nth_largest(high, pairs.box, groups, most + 1, -1.0)
    return preselected, inside & (low > danger[pairs.box]), (high >= bar[pairs.box]) | preselected


def _mask_ious(
    masks: MaskInputs, image: int, row: int, anchor: Ints, predicted: Tensor, tolerance: Tensor, precision: Precision
) -> Interval:
    """Returns mu of n anchors and one box, and its interval [3.2] to [3.4].

    Args:
        masks: the batch's inputs.
        image, row: image of the box, and its row of the batch.
        anchor: (n,) anchors of the image.
        predicted, tolerance: (n, 4) predicted corners in units of the prototypes' grid, and their tolerance.
        precision: the contender's.
    """
    coefficients, prototypes = masks.coefficients[image, anchor].detach(), masks.prototypes[image].detach()
    logits = torch.einsum("np,pyx->nyx", coefficients, prototypes)
    off = product_tolerance(torch.einsum("np,pyx->nyx", coefficients.abs(), prototypes.abs()), len(prototypes), precision)
    rounding = BORDER_ROUNDINGS * max(precision.core, precision.corner)
    kept = crops(predicted, tolerance + rounding * predicted.abs(), size_of(logits))
    true = masks.true_mask(row)
    value = _iou((logits > 0) & kept.inside, (logits > 0) & kept.inside, true)
    certain, possible = (logits > off) & kept.certain, (logits > -off) & kept.possible
    low, high = _iou(certain, possible, true), _iou(possible, certain, true)
    if precision.count:
        off_count = COUNT_ROUNDINGS * precision.count
        low, high = low - off_count, np.minimum(high + off_count, 1)
    return value, np.maximum(low, 0), high


def _iou(inner: Tensor, outer: Tensor, true: Tensor) -> Floats:
    """Returns |inner and true| / max(|true| + |outer without true|, 1) (n,) of predicted masks (n, rows, columns)."""
    both, beyond = (inner & true).sum((1, 2)), (outer & ~true).sum((1, 2))
    iou: Floats = (both.double() / (true.sum() + beyond).clamp(min=1)).numpy()
    return iou
