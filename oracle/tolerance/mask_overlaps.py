"""Intervals of the mask-aware assignment's overlaps (segmentation spec sections 3 and 9).

A pixel of a predicted mask is open where its logit is within rounding of 0, or a border of the predicted box within rounding of a whole
number. A pair is open to preselection where the intervals of its number q and of the 3K-th overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.definition.criterion import Scene
from oracle.definition.segmentation import ExactSegmentation, MaskInputs
from oracle.tolerance.intervals import Floats, nth_largest
from oracle.tolerance.mask_crops import BORDER_ROUNDINGS, crops
from oracle.tolerance.precision import Precision

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Interval = tuple[Floats, Floats, Floats]

PRODUCT_ROUNDINGS = 3.0  # Of each part of a product of coefficients and prototypes: its two factors and itself.
COUNT_ROUNDINGS = 4.0  # Of the quotient of counts, and of the mean of the two overlaps.


class PairColumns(NamedTuple):
    """Pairs sorted by box: box, its row of the batch, its image, anchor, each (P,); predicted corners and tolerance (P, 4) in pixels."""

    box: Ints
    row: Ints
    image: Ints
    anchor: Ints
    predicted: Tensor
    tolerance: Tensor


def product_tolerance(absolute: Tensor, prototypes: int, precision: Precision) -> Tensor:
    """Returns the tolerance of products of coefficients and prototypes, given the products of their magnitudes."""
    return (PRODUCT_ROUNDINGS + np.log2(prototypes + 1)) * precision.product * absolute


def mask_overlap_interval(
    exact: ExactSegmentation, scene: Scene, pairs: PairColumns, ciou: Interval, q: Interval, inside: Bools, precision: Precision
) -> Interval:
    """Returns the overlap (c + mu) / 2 of pairs (P,), and its interval [3].

    Args:
        exact: the definition.
        scene: the batch.
        pairs: the possible candidate pairs of the batch.
        ciou: (P,) c and its interval.
        q: (P,) p^alpha · c^beta and its interval.
        inside: (P,) whether the pair is a candidate in every correct program.
        precision: the contender's.
    """
    masks = exact.mask_inputs(scene.preds, scene.batch)
    chosen, certain, possible = _preselected(exact, pairs, q, inside, precision, anchors=len(scene.grid.centres))
    value, low, high = (np.zeros(len(pairs.box)) for _ in range(3))
    scale = masks.prototypes.shape[2] / scene.grid.height
    for box in np.unique(pairs.box[possible]):
        at = np.flatnonzero((pairs.box == box) & possible)
        value[at], low[at], high[at] = _mask_ious(masks, pairs, at, scale, precision)
    off = COUNT_ROUNDINGS * precision.evaluation
    value *= chosen
    overlap = (ciou[0] + value) / 2
    return (
        overlap,
        np.minimum((ciou[1] + low * certain) / 2 * (1 - off), overlap),
        np.maximum((ciou[2] + np.maximum(high * possible, value)) / 2 * (1 + off), overlap),
    )


def _preselected(
    exact: ExactSegmentation, pairs: PairColumns, q: Interval, inside: Bools, precision: Precision, anchors: int
) -> tuple[Bools, Bools, Bools]:
    """Returns the pairs (P,) that the definition preselects, those that every correct program does, and those that some does [3.1]."""
    spec = exact.spec
    groups, most = int(pairs.box.max(initial=-1)) + 1, min(3 * spec.topk, anchors)
    chosen = np.zeros(len(pairs.box), dtype=bool)
    for box in range(groups):
        at = np.flatnonzero((pairs.box == box) & inside)
        row = torch.zeros(anchors, dtype=torch.float64)
        row[pairs.anchor[at]] = torch.from_numpy(q[0][at] + spec.assign_eps)
        taken = np.zeros(anchors, dtype=bool)
        taken[exact.largest(row, most).numpy()] = True
        chosen[at] = taken[pairs.anchor[at]]
    # The sum with epsilon is rounded: numbers far below epsilon tie with 0.
    swallowed = spec.assign_eps * (1 + 2 * precision.core)
    low, high = (np.maximum(number, 0) + spec.assign_eps for number in q[1:])
    low, high = np.where(high <= swallowed, spec.assign_eps, low * (1 - 2 * precision.core)), high * (1 + 2 * precision.core)
    bar = nth_largest(low[inside], pairs.box[inside], groups, most, 0.0)
    danger = nth_largest(high, pairs.box, groups, most + 1, -1.0)
    return chosen, inside & (low > danger[pairs.box]), (high >= bar[pairs.box]) | chosen


def _mask_ious(masks: MaskInputs, pairs: PairColumns, at: Ints, scale: float, precision: Precision) -> Interval:
    """Returns mu of the pairs ``at`` (n,) of one box, and its interval [3.2] to [3.4]."""
    image, row = int(pairs.image[at[0]]), int(pairs.row[at[0]])
    coefficients, prototypes = masks.coefficients[image, pairs.anchor[at]].detach(), masks.prototypes[image].detach()
    logits = torch.einsum("np,pyx->nyx", coefficients, prototypes)
    off = product_tolerance(torch.einsum("np,pyx->nyx", coefficients.abs(), prototypes.abs()), len(prototypes), precision)
    corners = pairs.predicted[at] * scale
    rounding = max(precision.core, precision.corner)
    kept = crops(corners, pairs.tolerance[at] * scale + BORDER_ROUNDINGS * rounding * corners.abs(), tuple(logits.shape[1:]))
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
