"""Margins of the pose losses' assignment: level gate, keypoint similarity and equal boxes of the second generation (pose spec, section 4).

The first generation assigns as detection does. Sections in brackets are the pose specification's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from oracle.contract.contender import Batch
from oracle.definition import keypoints
from oracle.definition.criterion import ExactCriterion, Grid, GroundTruth
from oracle.definition.pose import ExactPose
from oracle.tolerance.coordinates import CORNER_ROUNDINGS, TRUTH_ROUNDINGS
from oracle.tolerance.intervals import SCORE_ROUNDINGS, Floats
from oracle.tolerance.margins import Bools, Boxes, Interval, Ints, MarginSteps, PossiblePairs, first_of_equals
from oracle.tolerance.precision import Precision

EXPONENT_ROUNDINGS = 6.0  # Of an exponent: squares, sum, area, product, quotient.
UNDERFLOWS = 32.0  # Terms of a mean that may each underflow.
GATE_SLACK = 1e-6  # Relative, of the root of an area [9].
_CHUNK = 1 << 16  # Pairs at a time.


class Predicted(NamedTuple):
    """Predicted keypoints (..., n, 2) in grid units, and their tolerance."""

    value: Tensor
    tolerance: Tensor


def predicted_keypoints(exact: ExactPose, raw: Tensor, centres: Tensor, anchor_error: Tensor, precision: Precision) -> Predicted:
    """Returns the keypoints of raw numbers (..., n, E) at anchors with centres (..., 2), decoded in a program's precision [3, 8a]."""
    value = keypoints.decoded_keypoints(raw, centres, exact.spec.generation)
    factor = 2.0 if exact.spec.generation == 1 else 1.0
    magnitudes = factor * raw[..., :2].abs() + centres[..., None, :].abs() + value.abs()
    rounding = max(precision.corner, precision.flat)
    return Predicted(value, CORNER_ROUNDINGS * rounding * magnitudes + anchor_error[..., None, :])


class PoseMargins(MarginSteps):
    """Margins of the pose losses."""

    def boxes(self, exact: ExactCriterion, truth: GroundTruth, batch: Batch, grid: Grid, precision: Precision) -> Boxes:
        """Second generation: boxes are equal only when their visible keypoints are, too, or when neither has any [9]."""
        found = super().boxes(exact, truth, batch, grid, precision)
        assert isinstance(exact, ExactPose)
        if exact.spec.generation == 1 or not len(found.row):
            return found
        target = exact.keypoints(batch, grid)
        own = torch.cat([target.pixels.flatten(1), target.visible.double()], 1)[found.row].numpy()
        first_twin = first_of_equals(np.column_stack([found.first_twin, own]))
        shadowed = first_of_equals(np.column_stack([first_twin, found.label])) < np.arange(len(found.row))
        return replace(found, first_twin=first_twin, shadowed=shadowed)

    def possible_pairs(
        self, exact: ExactCriterion, truth: GroundTruth, boxes: Boxes, grid: Grid, anchor_error: Tensor
    ) -> tuple[Ints, Ints, Floats, Floats]:
        """Second generation: pairs of fitting levels, and all pairs of a box that has none; an open gate counts as an open border [4.1]."""
        box, anchor, border, tolerance = super().possible_pairs(exact, truth, boxes, grid, anchor_error)
        assert isinstance(exact, ExactPose)
        if exact.spec.generation == 1 or not len(box):
            return box, anchor, border, tolerance
        least, most = (gate[box, anchor] for gate in _gates(boxes, grid))
        inside = (border > tolerance) & boxes.valid[box] & ~boxes.validity_open[box]
        certainly_some = np.zeros(len(boxes.row), dtype=bool)
        certainly_some[box[inside & least]] = True
        possibly_some = np.zeros(len(boxes.row), dtype=bool)
        possibly_some[box[most]] = True
        kept = most | ~certainly_some[box]
        sure = least | ~possibly_some[box]
        border = np.where(sure, border, 0.0)
        return box[kept], anchor[kept], border[kept], tolerance[kept]

    def overlap(self, pairs: PossiblePairs) -> Interval:
        """Second generation: the keypoint similarity of boxes with a visible keypoint, and its interval [4.2]."""
        overlaps = super().overlap(pairs)
        if _exact(pairs).spec.generation == 1 or not len(pairs.box):
            return overlaps
        chosen, logarithms = _log_similarities(pairs)
        for own, found in zip(overlaps, logarithms, strict=True):
            own[chosen] = np.exp(found)
        low = overlaps[1]
        low[low < UNDERFLOWS * pairs.precision.smallest_core] = 0
        return overlaps

    def ranks(self, pairs: PossiblePairs, overlap: Interval, logit: Floats) -> tuple[Interval, Interval] | None:
        """Second generation: logarithms, so that a similarity is positive however small; x is kept as 1 / (1 − log x) [9]."""
        exact, precision = _exact(pairs), pairs.precision
        if exact.spec.generation == 1:
            return None
        with np.errstate(divide="ignore"):
            value, low, high = (np.log(end) for end in overlap)
        chosen, logarithms = _log_similarities(pairs)
        for own, found in zip((value, low, high), logarithms, strict=True):
            own[chosen] = found
        probability, spec = -np.logaddexp(0, -logit), exact.spec
        unsure = SCORE_ROUNDINGS * max(precision.score, precision.flat) * (1 + np.abs(probability))
        metrics = [
            _power(probability + way * unsure, spec.alpha) + _power(end, spec.beta) for way, end in ((0, value), (-1, low), (1, high))
        ]
        rounding = EXPONENT_ROUNDINGS * precision.evaluation * np.abs(np.nan_to_num(metrics[0], neginf=0.0))
        metric = metrics[0], metrics[1] - rounding, metrics[2] + rounding
        return _kept((value, low, high)), _kept(metric)


def _exact(pairs: PossiblePairs) -> ExactPose:
    assert isinstance(pairs.exact, ExactPose)
    return pairs.exact


def _power(logarithm: Floats, exponent: float) -> Floats:
    """Returns the logarithm of a power, 0 for an exponent of 0."""
    return logarithm * exponent if exponent else np.zeros_like(logarithm)


def _kept(logarithms: Interval) -> Interval:
    value, low, high = (1 / (1 - np.minimum(end, 0)) for end in logarithms)
    return value, low, high


def _log_similarities(pairs: PossiblePairs) -> tuple[Ints, Interval]:
    """Returns the pairs (p,) of boxes with a visible keypoint, and the logarithm of their similarity with its interval."""
    exact = _exact(pairs)
    visible = exact.keypoints(pairs.batch, pairs.grid).visible.any(1).numpy()
    chosen = np.flatnonzero(visible[pairs.boxes.row[pairs.box]])
    parts = [_log_similarity(exact, pairs, some) for some in np.array_split(chosen, len(chosen) // _CHUNK + 1)]
    value, low, high = (np.concatenate(column) for column in zip(*parts, strict=True))
    return chosen, (value, low, high)


def _gates(boxes: Boxes, grid: Grid) -> tuple[Bools, Bools]:
    """Returns whether each anchor (G, A) certainly, and possibly, fits the level of each box [4.1]."""
    sides, off = boxes.corners[:, 2:] - boxes.corners[:, :2], boxes.tolerance[:, :2] + boxes.tolerance[:, 2:]
    root = np.sqrt(sides.prod(1))
    # A whole root of sides without rounding is exact in every program.
    slack = np.where((off == 0).all(1) & (root == np.floor(root)), 0.0, GATE_SLACK)
    low, high = (torch.from_numpy(np.sqrt((sides + way * off).clip(0).prod(1)) * (1 + way * slack)) for way in (-1, 1))
    certain = keypoints.large_enough(low, grid.strides) & keypoints.small_enough(high, grid.strides)
    possible = keypoints.large_enough(high, grid.strides) & keypoints.small_enough(low, grid.strides)
    return certain.numpy(), possible.numpy()


def _log_similarity(exact: ExactPose, pairs: PossiblePairs, some: Ints) -> Interval:
    """Returns the logarithm of the similarity of pairs ``some`` (p,) and its interval, each keypoint's by its own [4.2]."""
    box, anchor, precision = pairs.box[some], pairs.anchor[some], pairs.precision
    row, image = pairs.boxes.row[box], pairs.boxes.image[box]
    target = exact.keypoints(pairs.batch, pairs.grid)
    wanted, visible = target.pixels[row], target.visible[row]
    raw = exact.raw_keypoints(pairs.preds).detach()[image, anchor]
    stride = pairs.grid.strides[anchor][:, None, None]
    found = predicted_keypoints(exact, raw, pairs.grid.centres[anchor], pairs.anchor_error[anchor], precision)
    away = found.value * stride - wanted
    core = precision.evaluation
    off = found.tolerance * stride + TRUTH_ROUNDINGS * core * wanted.abs() + core * away.abs()
    area, area_off = (torch.from_numpy(part)[:, None] for part in areas_of(pairs.boxes.corners[box], pairs.boxes.tolerance[box], core))
    constants = exact.constants(pairs.batch)
    least = keypoints.AREA_SHARE * (area - area_off).clamp(min=0) + keypoints.EPSILON
    most = keypoints.AREA_SHARE * (area + area_off) + keypoints.EPSILON

    def likeness(distance: Tensor, divisor: Tensor, way: float) -> Floats:
        exponent = distance.square().sum(-1) / (constants * divisor) * (1 - way * EXPONENT_ROUNDINGS * core)
        mean = (-exponent).where(visible, -torch.inf).logsumexp(1) - visible.double().sum(1).log()
        found: Floats = (mean + way * EXPONENT_ROUNDINGS * core).numpy()
        return found

    value = likeness(away, keypoints.AREA_SHARE * area + keypoints.EPSILON, 0.0)
    low, high = likeness(away.abs() + off, least, -1.0), likeness((away.abs() - off).clamp(min=0), most, 1.0)
    return value, np.minimum(low, value), np.maximum(high, value)


def areas_of(corners: Floats, tolerance: Floats, roundoff: float) -> tuple[Floats, Floats]:
    """Returns w·h (n,) of boxes (n, 4), and its tolerance (n,)."""
    sides, off = corners[:, 2:] - corners[:, :2], tolerance[:, 2:] + tolerance[:, :2]
    area = sides.prod(1)
    return area, (sides + off).prod(1) - area + 2 * roundoff * area
