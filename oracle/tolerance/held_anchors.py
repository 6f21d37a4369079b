"""Tolerances of the terms and gradients of each held anchor (spec sections 6 to 8).

The tolerance of a box term is found by moving each corner, as in :mod:`oracle.tolerance.margins`. Where a side coincides with the truth's
within rounding, the gradient may be any number between its one-sided values (:mod:`oracle.tolerance.kinks`).
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

EVALUATION_ROUNDINGS = 4.0  # Of an expression, beyond those of its operands.
ENTROPY_ROUNDINGS = 3.0  # Of an elementwise logarithm or exponential.
OUTPUT_ROUNDINGS = 2.0  # Of a gradient's conversion to the logits' dtype.


@dataclass(frozen=True)
class BoxPart:
    """CIoU and its gradient at held anchors.

    Attributes:
        overlap, overlap_tolerance: CIoU (H,) and its tolerance.
        lowest, highest: (H, 4) ends of the interval of its slopes in the sides, less the definition's slope: 0 except at a kink.
        steepest: (H, 4) largest magnitude of the slopes in the interval.
        slope_tolerance: (H, 4) tolerance of any of them.
    """

    overlap: Tensor
    overlap_tolerance: Tensor
    lowest: Tensor
    highest: Tensor
    steepest: Tensor
    slope_tolerance: Tensor


class Bounds(NamedTuple):
    """Bounds on a correct program's gradient of the box logits (H, 4R).

    Attributes:
        rounding: tolerance of any value of the interval.
        below, above: ends of the interval before rounding, less the definition's gradient: 0 except at a kink.
    """

    rounding: Tensor
    below: Tensor
    above: Tensor


@dataclass(frozen=True)
class HeldAnchors:
    """Inputs of the terms at the held anchors, in float64: H entries, in grid units.

    Attributes:
        logits, sides: (H, 4R) box logits, and the distances (H, 4) decoded from them.
        centres, strides: (H, 2) and, in pixels, (H,).
        corners, corner_tolerance: (H, 4) corners of the truth.
        predicted_tolerance: (H, 4) of the predicted corners.
        target, target_tolerance: (H, 4) distances from the centre to the truth's sides.
        score, label: (H,) logit of the box's class, and the class.
        image_size: (4,) width, height, width, height in pixels.
    """

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
    """Gathers the inputs of the terms at the H entries of an assignment; logits and targets on the CPU."""
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
    """Returns the CIoU and its slope in the predicted sides, with tolerances [6].

    ``one_at_a_time``: corners are moved one at a time, never together, which is faster.
    """
    at, own = corners_of(held.sides, held.centres), _own_slope(held, eps)
    known = at, held.predicted_tolerance, held.corners, held.corner_tolerance
    facts = list(possible_facts(*known))
    (overlap, overlap_tolerance), *ends = moved_by_rounding(*known, eps, facts, one_at_a_time=one_at_a_time)
    beyond = torch.stack([end.value - own for end in ends]) if len(facts) > 1 else torch.zeros_like(own)[None]
    steepest = torch.stack([own, *(end.value for end in ends)]).abs().amax(0)
    # The slope is a sum of parts, each up to one over the box's sides, that may cancel.
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
    """Returns the definition's slope (H, 4) of the CIoU in the sides [8]."""
    with torch.enable_grad():
        sides = held.sides.detach().clone().requires_grad_()
        overlap = ciou(corners_of(sides, held.centres), held.corners, eps)
        (slope,) = torch.autograd.grad(overlap.sum(), sides)
    return slope


def third_term(held: HeldAnchors, spec: LossSpec, rounding: float) -> tuple[Tensor, Tensor]:
    """Returns the distribution or distance term of each held anchor (H,) and its tolerance [7]."""
    if spec.reg_max == 1:
        scale = held.strides[:, None] / held.image_size * spec.distance_term
        off = held.target_tolerance + EVALUATION_ROUNDINGS * rounding * (held.sides - held.target).abs()
        return ((held.sides - held.target).abs() * scale).mean(1), (off * scale).mean(1)
    nll = -held.logits.unflatten(1, (4, spec.reg_max)).log_softmax(-1)
    clamped, target_tolerance = _clamped(held, spec, rounding)
    lower = clamped.floor().long()
    first, second = (nll.gather(2, (lower + k)[..., None])[..., 0] for k in (0, 1))
    share = clamped - lower
    step = nll.diff(dim=2).abs()
    # Within rounding of a whole number, the pair of bins, and so the slope, may be the neighbour's.
    around = torch.stack([step.gather(2, (lower + k).clamp(0, spec.reg_max - 2)[..., None])[..., 0] for k in (-1, 0, 1)])
    near = torch.stack([share < target_tolerance, torch.ones_like(share, dtype=torch.bool), 1 - share < target_tolerance])
    slope = (around * near).amax(0)
    span = held.logits.unflatten(1, (4, spec.reg_max)).abs().amax(2)
    each = first * (1 - share) + second * share
    off = slope * target_tolerance + ENTROPY_ROUNDINGS * rounding * (each + torch.minimum(span, each + math.log(spec.reg_max)))
    return each.mean(1), off.mean(1)


def _clamped(held: HeldAnchors, spec: LossSpec, rounding: float) -> tuple[Tensor, Tensor]:
    """Returns clamped target distances (H, 4) and their tolerance (H, 4): that of the limit where they are certainly clamped."""
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
    """Returns bounds on the gradient of the box logits (H, 4R): of the CIoU, by the chain rule, plus the third term's.

    ``weight`` (H,) is the share of each anchor and ``tolerance`` (H,) its own; ``gains`` are those of the box and the third term times
    B / S, of which ``drift`` is the relative rounding.
    """
    box_gain, third_gain = gains
    rounding = max(precision.corner, precision.evaluation)
    through = _distribution(held, spec, rounding) if spec.reg_max > 1 else _distance(held, spec)
    # Slopes of each side in its logits, then magnitudes and tolerances of the two parts at each logit.
    side_slope, side_slope_tolerance, third, third_tolerance, third_below, third_above = through
    steepest, slope_tolerance = part.steepest[..., None], part.slope_tolerance[..., None]
    size = box_gain * steepest * side_slope.abs() + third_gain / 4 * third
    off = box_gain * (slope_tolerance * side_slope.abs() + steepest * side_slope_tolerance) + third_gain / 4 * third_tolerance
    relative = drift + EVALUATION_ROUNDINGS * rounding + OUTPUT_ROUNDINGS * precision.output
    # The largest share that a program may have, which counts where the definition's is 0.
    largest = (weight + tolerance)[:, None, None]
    total = largest * (off + relative * size) + tolerance[:, None, None] * size
    # The loss falls as the overlap rises.
    ends = [-box_gain * side_slope * end[..., None] for end in (part.lowest, part.highest)]
    below, above = torch.minimum(*ends) + third_gain / 4 * third_below, torch.maximum(*ends) + third_gain / 4 * third_above
    return Bounds(
        total.flatten(1) + precision.smallest_output * max(1.0, box_gain, third_gain),
        *((largest * end).flatten(1) for end in (below, above)),
    )


class _LogitSlopes(NamedTuple):
    """Slopes of the sides in their logits (H, 4, R), and the third term's gradient there, times 4.

    Attributes:
        side_slope, side_slope_tolerance: slope of the side in the logit, and its tolerance.
        third, third_tolerance: magnitude of the third term's gradient, and its tolerance.
        third_below, third_above: ends of the interval of that gradient, less the definition's: 0 except at a kink.
    """

    side_slope: Tensor
    side_slope_tolerance: Tensor
    third: Tensor
    third_tolerance: Tensor
    third_below: Tensor
    third_above: Tensor


def _distribution(held: HeldAnchors, spec: LossSpec, rounding: float) -> _LogitSlopes:
    """Returns the slopes for R > 1, where the third term is a cross-entropy, whose gradient has no kink."""
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
    """Returns the slopes for R = 1, where the logit is the side; rounding may hide the sign of its difference from the target."""
    scale = (held.strides[:, None] / held.image_size)[..., None] * spec.distance_term
    difference = (held.sides - held.target)[..., None]
    hidden = difference.abs() <= held.target_tolerance[..., None]
    one, none = torch.ones_like(scale), torch.zeros_like(scale)
    below, above = (scale * (end - difference.sign()) * hidden for end in (-1, 1))
    return _LogitSlopes(one, none, scale, none, below, above)
