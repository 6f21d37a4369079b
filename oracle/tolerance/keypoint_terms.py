"""Tolerances of the location and visibility terms of pose, and of their gradients (pose spec, sections 6 to 8a).

Errors of a decoded keypoint, of its target and of the box's area move each cost between the costs of the nearest and the farthest of them.

Shape suffixes: H held anchors, n keypoints; 2 coordinates. Sections in brackets are the pose specification's.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from oracle.definition import keypoints
from oracle.definition.pose import ExactPose
from oracle.tolerance.coordinates import TRUTH_ROUNDINGS, truth_corner_tolerance
from oracle.tolerance.held_anchors import EVALUATION_ROUNDINGS, OUTPUT_ROUNDINGS
from oracle.tolerance.loss_and_gradients import LOGIT_ROUNDINGS, Assigned, summation_roundings
from oracle.tolerance.pose import EXPONENT_ROUNDINGS, areas_of, predicted_keypoints

SECOND_ORDER = 1.25  # The ends of an interval do not show all of a curve between them.
_WIDE = 0.25  # Errors beyond this share of the root of a divisor make the slope any of the curve's.
_STEEPEST = 0.858  # Largest slope of 1 − exp(−d²/D) in d, times √D: √2 · exp(−1/2).


@dataclass(frozen=True)
class HeldKeypoints:
    """Keypoints of the held anchors in float64, in grid units.

    Attributes:
        away, away_off: (H, n, 2) prediction less target, and its tolerance.
        visible: (H, n) bool.
        least, divisor, most: (H, n) divisor of the squared distance, 8σ_k²(q + ε), and its interval.
        logits: (H, n) visibility logits; (H, 0) without.
        count: |F|, at least 1.
        factor: of a raw number in the decoding, κ.
    """

    away: Tensor
    away_off: Tensor
    visible: Tensor
    least: Tensor
    divisor: Tensor
    most: Tensor
    logits: Tensor
    count: int
    factor: float


def held_keypoints(assigned: Assigned) -> HeldKeypoints:
    """Gathers the keypoints of an assignment's entries."""
    exact, held, precision = assigned.exact, assigned.assignment, assigned.precision
    assert isinstance(exact, ExactPose)
    grid, truth = exact.grid(assigned.preds), exact.truth(assigned.preds, assigned.batch)
    target, core = exact.keypoints(assigned.batch, grid), precision.evaluation
    raw = exact.raw_keypoints(assigned.preds).detach()[held.image, held.anchor]
    centres, strides = grid.centres[held.anchor], grid.strides[held.anchor]
    anchor_error = (centres.to(precision.anchors).double() - centres).abs()
    found = predicted_keypoints(exact, raw, centres, anchor_error, precision)
    wanted = target.pixels[held.box] / strides[:, None, None]
    away = found.value - wanted
    corners = truth.corners[held.box].double()
    rounding = truth_corner_tolerance(corners, assigned.batch["bboxes"].reshape(-1, 4)[held.box], (grid.height, grid.width), precision.core)
    area, off = (torch.from_numpy(part) / strides.square() for part in areas_of(corners.numpy(), rounding.numpy(), core))
    constants = exact.constants(assigned.batch)
    least, divisor, most = (constants * (part[:, None] + keypoints.EPSILON) for part in ((area - off).clamp(min=0), area, area + off))
    return HeldKeypoints(
        away=away,
        away_off=found.tolerance + TRUTH_ROUNDINGS * core * wanted.abs() + core * away.abs(),
        visible=target.visible[held.box],
        least=least,
        divisor=divisor,
        most=most,
        logits=raw[..., 2] if raw.shape[-1] == 3 else raw[..., 0, :0],
        count=max(len(held.box), 1),
        factor=2.0 if exact.spec.generation == 1 else 1.0,
    )


def location(points: HeldKeypoints, assigned: Assigned) -> tuple[Tensor, Tensor]:
    """Returns the tolerance of the location term, and that of its gradient in the raw coordinates (H, n, 2) [6, 8]."""
    core, gain = assigned.precision.evaluation, assigned.gains["pose"] / points.count
    value = _cost(points.away, points.divisor)
    low = _cost((points.away.abs() - points.away_off).clamp(min=0), points.most)
    high = _cost(points.away.abs() + points.away_off, points.least)
    off = torch.maximum(high - value, value - low) + EVALUATION_ROUNDINGS * core
    share = points.visible / (points.visible.double().sum(1, keepdim=True) + keypoints.EPSILON)
    relative = (summation_roundings(share.numel()) + EVALUATION_ROUNDINGS) * core
    loss = gain * (share * (off + relative * value)).sum()
    slope, slope_off = _slopes(points, core)
    output = OUTPUT_ROUNDINGS * assigned.precision.output
    bound = gain * points.factor * share[..., None] * (slope_off + (relative + output) * slope.abs())
    return loss, bound


def _cost(away: Tensor, divisor: Tensor) -> Tensor:
    return -torch.expm1(-away.square().sum(-1) / divisor)


def _slope(away: Tensor, divisor: Tensor) -> Tensor:
    """Returns the slope (H, n, 2) of the cost in each coordinate."""
    return 2 * away / divisor[..., None] * torch.exp(-away.square().sum(-1) / divisor)[..., None]


def _slopes(points: HeldKeypoints, core: float) -> tuple[Tensor, Tensor]:
    """Returns the slope (H, n, 2) of the cost, and its tolerance."""
    own, change = _slope(points.away, points.divisor), torch.zeros_like(points.away)
    for x, y, divisor in itertools.product((-1, 0, 1), (-1, 0, 1), (points.least, points.divisor, points.most)):
        moved = points.away + points.away_off * points.away.new_tensor([x, y])
        change = torch.maximum(change, (_slope(moved, divisor) - own).abs())
    root = points.least.sqrt()
    wide = (points.away_off.amax(-1) > _WIDE * root) | (points.most > (1 + _WIDE) * points.least)
    any_slope = (2 * _STEEPEST / root)[..., None]
    exponent = (points.away.square().sum(-1) / points.divisor)[..., None]
    rounding = core * (EVALUATION_ROUNDINGS + EXPONENT_ROUNDINGS * exponent) * own.abs()
    return own, torch.where(wide[..., None], any_slope.expand_as(own), SECOND_ORDER * change) + rounding


def visibility(points: HeldKeypoints, assigned: Assigned) -> tuple[Tensor, Tensor]:
    """Returns the tolerance of the visibility term, and that of its gradient in the logits (H, n) [6, 8]."""
    core, gain = max(assigned.precision.score, assigned.precision.evaluation), assigned.gains["kobj"] / max(points.logits.numel(), 1)
    signed = points.logits.where(points.visible[:, : points.logits.shape[1]], -points.logits)
    cost = torch.nn.functional.softplus(-signed)
    off = LOGIT_ROUNDINGS * core * (points.logits.abs() + 1) + summation_roundings(points.logits.numel()) * core * cost
    gradient = torch.sigmoid(-signed)
    return gain * off.sum(), gain * (EVALUATION_ROUNDINGS * core + OUTPUT_ROUNDINGS * assigned.precision.output * gradient)
