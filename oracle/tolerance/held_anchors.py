"""By how much rounding moves the terms and gradients of each held anchor (spec sections 6 to 8).

Box terms are moved corner by corner, as the overlaps of :mod:`oracle.tolerance.margins` are. Where a side coincides with the truth's
within rounding, the gradient may be any number between its one-sided values (:mod:`oracle.tolerance.kinks`), and no anchor has to be left
out (spec section 8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from oracle.contract.contender import Batch, Preds
from oracle.definition.criterion import ExactCriterion
from oracle.definition.formulas import ciou, corners_of
from oracle.tolerance.coordinates import decoded, predicted_corner_tolerance, truth_corner_tolerance
from oracle.tolerance.kinks import moved_by_rounding, possible_facts
from oracle.tolerance.precision import Precision
from twinloss import Assignment, LossSpec

EVALUATION_ROUNDINGS = 4.0  # Of an expression, beyond what its operands bring along.
ENTROPY_ROUNDINGS = 3.0  # Of an elementwise logarithm or exponential.
OUTPUT_ROUNDINGS = 2.0  # Of a gradient, when it is brought into the logits' dtype.


@dataclass(frozen=True)
class BoxPart:
    """CIoU and its gradient at held anchors.

    Attributes:
        overlap, overlap_slack: CIoU (H,) and its rounding.
        lowest, highest: (H, 4) by how much its slopes in the four sides may be less, and more, than the definition's: 0 but at a kink.
        steepest: (H, 4) largest magnitude of the slopes in between.
        slope_slack: (H, 4) rounding of any of them.
    """

    overlap: Tensor
    overlap_tolerance: Tensor
    lowest: Tensor
    highest: Tensor
    steepest: Tensor
    slope_tolerance: Tensor


class Bounds(NamedTuple):
    """What a correct program's gradient of the box logits (H, 4R) may be.

    Attributes:
        rounding: of any value that it may have.
        below, above: by how much the values may be less, and more, than the definition's before any rounding: 0 but at a kink.
    """

    rounding: Tensor
    below: Tensor
    above: Tensor


@dataclass(frozen=True)
class HeldAnchors:
    """What the terms need of the held anchors, in float64: H entries, grid units unless said otherwise."""

    logits: Tensor
    sides: Tensor
    centres: Tensor
    strides: Tensor
    corners: Tensor
    corner_tolerance: Tensor
    predicted_tolerance: Tensor
    target: Tensor
    target_tolerance: Tensor
    score: Tensor
    label: Tensor
    image_size: Tensor


def held_anchors(exact: ExactCriterion, preds: Preds, batch: Batch, assignment: Assignment, precision: Precision) -> HeldAnchors:
    """What stands at the held anchors of an assignment of H entries; logits and targets on the CPU."""
    spec, grid, truth = exact.spec, exact.grid(preds), exact.truth(preds, batch)
    image, anchor, row = assignment.image, assignment.anchor, assignment.box
    logits = preds["boxes"].detach()[image, :, anchor].double()
    found = decoded(logits, spec.reg_max)
    centres, strides = grid.centres[anchor], grid.strides[anchor]
    anchor_error = (centres.to(precision.anchors).double() - centres).abs().repeat(1, 2)
    pixels, label = truth.corners[row].double(), truth.label[row]
    corners = pixels / strides[:, None]
    rounding = truth_corner_tolerance(pixels, batch["bboxes"].reshape(-1, 4)[row], (grid.height, grid.width), precision.core)
    corner_tolerance = rounding / strides[:, None]
    target = torch.cat([centres - corners[:, :2], corners[:, 2:] - centres], dim=1)
    predicted_tolerance = predicted_corner_tolerance(found, corners_of(found.sides, centres), precision)
    return HeldAnchors(
        logits=logits,
        sides=found.sides,
        centres=centres,
        strides=strides,
        corners=corners,
        corner_tolerance=corner_tolerance,
        predicted_tolerance=predicted_tolerance + anchor_error,
        target=target,
        target_tolerance=corner_tolerance + anchor_error + 2 * precision.evaluation * target.abs(),
        score=preds["scores"].detach()[image, label, anchor].double(),
        label=label,
        image_size=torch.tensor([grid.width, grid.height, grid.width, grid.height], dtype=torch.float64),
    )


def box_part(held: HeldAnchors, eps: float, rounding: float, *, one_at_a_time: bool = False) -> BoxPart:
    """CIoU, prediction first, and its slope in the sides, where they are and with the corners moved by rounding [6].

    ``one_at_a_time``: they are moved one at a time, never together.
    """
    at, own = corners_of(held.sides, held.centres), _own_slope(held, eps)
    known = at, held.predicted_tolerance, held.corners, held.corner_tolerance
    facts = list(possible_facts(*known))
    (overlap, overlap_tolerance), *ends = moved_by_rounding(*known, eps, facts, one_at_a_time=one_at_a_time)
    beyond = torch.stack([end.value - own for end in ends]) if len(facts) > 1 else torch.zeros_like(own)[None]
    steepest = torch.stack([own, *(end.value for end in ends)]).abs().amax(0)
    # The slope is a sum of parts as large as one over the box's sides, which may cancel.
    parts = steepest + 1 / (held.corners[:, 2:] - held.corners[:, :2] + eps).clamp(min=eps).repeat(1, 2).maximum(
        held.sides[:, :2].add(held.sides[:, 2:]).abs().repeat(1, 2)
    )
    evaluated = EVALUATION_ROUNDINGS * rounding
    return BoxPart(
        overlap,
        overlap_tolerance + evaluated * (1 + (1 - overlap).abs()),
        lowest=beyond.amin(0).clamp(max=0),
        highest=beyond.amax(0).clamp(min=0),
        steepest=steepest,
        slope_tolerance=torch.stack([end.tolerance for end in ends]).amax(0) + evaluated * parts,
    )


def _own_slope(held: HeldAnchors, eps: float) -> Tensor:
    """The definition's slope (H, 4) of the CIoU in the sides [8]."""
    with torch.enable_grad():
        sides = held.sides.detach().clone().requires_grad_()
        overlap = ciou(corners_of(sides, held.centres), held.corners, eps)
        (slope,) = torch.autograd.grad(overlap.sum(), sides)
    return slope


def third_term(held: HeldAnchors, spec: LossSpec, rounding: float) -> tuple[Tensor, Tensor]:
    """Distribution or distance term of each held anchor (H,) and its rounding [7]."""
    if spec.reg_max == 1:
        scale = held.strides[:, None] / held.image_size * spec.distance_term
        off = held.target_tolerance + EVALUATION_ROUNDINGS * rounding * (held.sides - held.target).abs()
        return ((held.sides - held.target).abs() * scale).mean(1), (off * scale).mean(1)
    surprise = -held.logits.unflatten(1, (4, spec.reg_max)).log_softmax(-1)
    clamped, target_tolerance = _clamped(held, spec, rounding)
    lower = clamped.floor().long()
    first, second = (surprise.gather(2, (lower + k)[..., None])[..., 0] for k in (0, 1))
    share = clamped - lower
    step = surprise.diff(dim=2).abs()
    # Within rounding of a whole number, the pair of bins, and so the slope, may be the neighbour's.
    around = torch.stack([step.gather(2, (lower + k).clamp(0, spec.reg_max - 2)[..., None])[..., 0] for k in (-1, 0, 1)])
    near = torch.stack([share < target_tolerance, torch.ones_like(share, dtype=torch.bool), 1 - share < target_tolerance])
    slope = (around * near).amax(0)
    span = held.logits.unflatten(1, (4, spec.reg_max)).abs().amax(2)
    each = first * (1 - share) + second * share
    off = slope * target_tolerance + ENTROPY_ROUNDINGS * rounding * (each + torch.minimum(span, each + math.log(spec.reg_max)))
    return each.mean(1), off.mean(1)


def _clamped(held: HeldAnchors, spec: LossSpec, rounding: float) -> tuple[Tensor, Tensor]:
    """Clamped target distances (H, 4) and their rounding (H, 4): that of the limit alone where they are clamped for certain."""
    limit = spec.reg_max - 1 - spec.clamp_margin
    clamped = held.target.clamp(0, limit)
    free = (held.target > -held.target_tolerance) & (held.target < limit + held.target_tolerance)
    return clamped, held.target_tolerance * free + 2 * rounding * clamped


def boxes_gradient(
    held: HeldAnchors,
    part: BoxPart,
    weight: Tensor,
    tolerance: Tensor,
    gains: tuple[float, float],
    spec: LossSpec,
    precision: Precision,
    drift: float,
) -> Bounds:
    """Bounds of the gradient of the box logits (H, 4R): slopes through the expectation, plus the third term's own."""
    box_gain, third_gain = gains
    rounding = max(precision.corner, precision.evaluation)
    through = _distribution(held, spec, rounding) if spec.reg_max > 1 else _distance(held, spec)
    # How far each logit moves its side, then magnitudes and roundings of the two parts at each logit.
    side_slope, side_slope_tolerance, third, third_tolerance, third_below, third_above = through
    steepest, slope_tolerance = part.steepest[..., None], part.slope_tolerance[..., None]
    size = box_gain * steepest * side_slope.abs() + third_gain / 4 * third
    off = box_gain * (slope_tolerance * side_slope.abs() + steepest * side_slope_tolerance) + third_gain / 4 * third_tolerance
    relative = drift + EVALUATION_ROUNDINGS * rounding + OUTPUT_ROUNDINGS * precision.output
    total = weight[:, None, None] * (off + relative * size) + tolerance[:, None, None] * size
    # The loss falls as the overlap rises.
    ends = [-box_gain * side_slope * end[..., None] for end in (part.lowest, part.highest)]
    below, above = torch.minimum(*ends) + third_gain / 4 * third_below, torch.maximum(*ends) + third_gain / 4 * third_above
    return Bounds(
        total.flatten(1) + precision.smallest_output * max(1.0, box_gain, third_gain),
        *((weight[:, None, None] * end).flatten(1) for end in (below, above)),
    )


class _LogitSlopes(NamedTuple):
    """What stands between a logit (H, 4, R) and its side, and the third term's own gradient there, times 4.

    Attributes:
        steep, steep_slack: slope of the side in the logit, and its rounding.
        third, third_slack: magnitude of the third term's gradient, and its rounding.
        third_below, third_above: by how much that may be less, and more, than the definition's: 0 but at a kink.
    """

    side_slope: Tensor
    side_slope_tolerance: Tensor
    third: Tensor
    third_tolerance: Tensor
    third_below: Tensor
    third_above: Tensor


def _distribution(held: HeldAnchors, spec: LossSpec, rounding: float) -> _LogitSlopes:
    """R > 1: the expectation, and the cross-entropy, whose gradient has no kink."""
    bins = torch.arange(spec.reg_max, dtype=torch.float64)
    rows = held.logits.unflatten(1, (4, spec.reg_max))
    share = rows.softmax(-1)
    # The argument of the exponential is rounded where it is formed, so that a small share is less precise.
    shares = share * rounding * (EVALUATION_ROUNDINGS + 2 * (rows.amax(-1, keepdim=True) - rows))
    away = bins - held.sides[..., None]
    clamped, target_tolerance = _clamped(held, spec, rounding)
    target = (1 - (bins - clamped[..., None]).abs()).clamp(min=0)
    touched = (bins - clamped[..., None]).abs() < 1 + target_tolerance[..., None]
    side_slope_tolerance = shares * away.abs() + share * (held.predicted_tolerance[..., None] + EVALUATION_ROUNDINGS * rounding * bins)
    third_tolerance = shares + EVALUATION_ROUNDINGS * rounding * target + target_tolerance[..., None] * touched
    none = torch.zeros_like(share)
    return _LogitSlopes(share * away, side_slope_tolerance, share + target, third_tolerance, none, none)


def _distance(held: HeldAnchors, spec: LossSpec) -> _LogitSlopes:
    """R = 1: the logit is the side; the sign of its difference from the target may be any where rounding hides it."""
    scale = (held.strides[:, None] / held.image_size)[..., None] * spec.distance_term
    difference = (held.sides - held.target)[..., None]
    hidden = difference.abs() <= held.target_tolerance[..., None]
    one, none = torch.ones_like(scale), torch.zeros_like(scale)
    below, above = (scale * (end - difference.sign()) * hidden for end in (-1, 1))
    return _LogitSlopes(one, none, scale, none, below, above)
