"""By how much rounding moves the terms and gradients of each held anchor (spec sections 6 to 8).

Box terms are moved corner by corner, as the overlaps of :mod:`oracle.tolerance.margins` are. A side that coincides with the truth's within
rounding then widens the gradient's rounding to the interval between its one-sided values, and no anchor has to be left out (spec section
8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from oracle.contract.contender import Batch, Preds
from oracle.definition.criterion import ExactCriterion
from oracle.definition.formulas import ciou, corners_of
from oracle.tolerance.coordinates import corner_tolerance, decoded, truth_tolerance
from oracle.tolerance.precision import Arithmetic
from twinloss import Assignment, LossSpec

EVALUATION_ROUNDINGS = 4.0  # Of an expression, beyond what its operands bring along.
ENTROPY_ROUNDINGS = 3.0  # Of an elementwise logarithm or exponential.
OUTPUT_ROUNDINGS = 2.0  # Of a gradient, when it is brought into the logits' dtype.


@dataclass(frozen=True)
class BoxPart:
    """At held anchors: CIoU (H,) and its rounding, its gradient in the four sides (H, 4) and the rounding of that."""

    overlap: Tensor
    overlap_slack: Tensor
    slope: Tensor
    slope_slack: Tensor


@dataclass(frozen=True)
class Held:
    """What the terms need of the held anchors, in float64: H entries, grid units unless said otherwise."""

    logits: Tensor
    sides: Tensor
    centres: Tensor
    strides: Tensor
    corners: Tensor
    corner_slack: Tensor
    predicted_slack: Tensor
    target: Tensor
    target_slack: Tensor
    score: Tensor
    label: Tensor
    image_size: Tensor


def held_anchors(exact: ExactCriterion, preds: Preds, batch: Batch, assignment: Assignment, arithmetic: Arithmetic) -> Held:
    """What stands at the held anchors of an assignment of H entries; logits and targets on the CPU."""
    spec, grid, truth = exact.spec, exact.grid(preds), exact.truth(preds, batch)
    image, anchor, row = assignment.image, assignment.anchor, assignment.box
    logits = preds["boxes"].detach()[image, :, anchor].double()
    found = decoded(logits, spec.reg_max)
    centres, strides = grid.centres[anchor], grid.strides[anchor]
    anchor_error = (centres.to(arithmetic.anchors).double() - centres).abs().repeat(1, 2)
    pixels, label = truth.corners[row].double(), truth.label[row]
    corners = pixels / strides[:, None]
    rounding = truth_tolerance(pixels, batch["bboxes"].reshape(-1, 4)[row], (grid.height, grid.width), arithmetic.core)
    corner_slack = rounding / strides[:, None]
    target = torch.cat([centres - corners[:, :2], corners[:, 2:] - centres], dim=1)
    predicted_slack = corner_tolerance(found, corners_of(found.sides, centres), arithmetic)
    return Held(
        logits=logits,
        sides=found.sides,
        centres=centres,
        strides=strides,
        corners=corners,
        corner_slack=corner_slack,
        predicted_slack=predicted_slack + anchor_error,
        target=target,
        target_slack=corner_slack + anchor_error + 2 * arithmetic.evaluation * target.abs(),
        score=preds["scores"].detach()[image, label, anchor].double(),
        label=label,
        image_size=torch.tensor([grid.width, grid.height, grid.width, grid.height], dtype=torch.float64),
    )


def box_part(held: Held, eps: float, rounding: float) -> BoxPart:
    """CIoU, prediction first, and its slope in the sides, where they are and with each corner moved by its rounding to either side [6]."""
    errors = torch.cat([held.predicted_slack, held.corner_slack], dim=1)
    eye = torch.eye(8, dtype=torch.float64)
    shifts = torch.cat([torch.zeros(1, 8, dtype=torch.float64), eye, -eye])[:, None, :] * errors
    predicted, truth = shifts[..., :4], held.corners + shifts[..., 4:]
    with torch.enable_grad():
        sides = held.sides.expand(17, -1, -1).clone().requires_grad_()
        overlap = ciou(corners_of(sides, held.centres) + predicted, truth, eps)
        (slope,) = torch.autograd.grad(overlap.sum(), sides)
    overlap = overlap.detach()
    value_change, slope_change = ((moved[1:] - moved[0]).abs().nan_to_num(nan=torch.inf) for moved in (overlap, slope))
    value_slack = torch.maximum(value_change[:8], value_change[8:]).sum(0)
    slope_slack = torch.maximum(slope_change[:8], slope_change[8:]).sum(0)
    # The slope is a sum of parts as large as one over the box's sides, which may cancel.
    parts = slope[0].abs() + 1 / (held.corners[:, 2:] - held.corners[:, :2] + eps).clamp(min=eps).repeat(1, 2).maximum(
        held.sides[:, :2].add(held.sides[:, 2:]).abs().repeat(1, 2)
    )
    evaluated = EVALUATION_ROUNDINGS * rounding
    return BoxPart(overlap[0], value_slack + evaluated * (1 + (1 - overlap[0]).abs()), slope[0], slope_slack + evaluated * parts)


def third_term(held: Held, spec: LossSpec, rounding: float) -> tuple[Tensor, Tensor]:
    """Distribution or distance term of each held anchor (H,) and its rounding [7]."""
    if spec.reg_max == 1:
        scale = held.strides[:, None] / held.image_size * spec.distance_term
        off = held.target_slack + EVALUATION_ROUNDINGS * rounding * (held.sides - held.target).abs()
        return ((held.sides - held.target).abs() * scale).mean(1), (off * scale).mean(1)
    surprise = -held.logits.unflatten(1, (4, spec.reg_max)).log_softmax(-1)
    clamped, target_slack = _clamped(held, spec, rounding)
    lower = clamped.floor().long()
    first, second = (surprise.gather(2, (lower + k)[..., None])[..., 0] for k in (0, 1))
    share = clamped - lower
    step = surprise.diff(dim=2).abs()
    # Within rounding of a whole number, the pair of bins, and so the slope, may be the neighbour's.
    around = torch.stack([step.gather(2, (lower + k).clamp(0, spec.reg_max - 2)[..., None])[..., 0] for k in (-1, 0, 1)])
    near = torch.stack([share < target_slack, torch.ones_like(share, dtype=torch.bool), 1 - share < target_slack])
    slope = (around * near).amax(0)
    span = held.logits.unflatten(1, (4, spec.reg_max)).abs().amax(2)
    each = first * (1 - share) + second * share
    off = slope * target_slack + ENTROPY_ROUNDINGS * rounding * (each + torch.minimum(span, each + math.log(spec.reg_max)))
    return each.mean(1), off.mean(1)


def _clamped(held: Held, spec: LossSpec, rounding: float) -> tuple[Tensor, Tensor]:
    """Clamped target distances (H, 4) and their rounding (H, 4): that of the limit alone where they are clamped for certain."""
    limit = spec.reg_max - 1 - spec.clamp_margin
    clamped = held.target.clamp(0, limit)
    free = (held.target > -held.target_slack) & (held.target < limit + held.target_slack)
    return clamped, held.target_slack * free + 2 * rounding * clamped


def boxes_gradient(
    held: Held,
    part: BoxPart,
    weight: Tensor,
    slack: Tensor,
    gains: tuple[float, float],
    spec: LossSpec,
    arithmetic: Arithmetic,
    drift: float,
) -> Tensor:
    """Rounding (H, 4R) of the gradient of the box logits: slopes through the expectation, plus the third term's own."""
    box_gain, third_gain = gains
    rounding = max(arithmetic.corner, arithmetic.evaluation)
    through = _distribution(held, spec, rounding) if spec.reg_max > 1 else _distance(held, spec)
    # Magnitudes, then roundings, of the two parts at each logit.
    steep, steep_slack, third, third_slack = through
    slope, slope_slack = part.slope.abs()[..., None], part.slope_slack[..., None]
    size = box_gain * slope * steep + third_gain / 4 * third
    off = box_gain * (slope_slack * steep + slope * steep_slack) + third_gain / 4 * third_slack
    relative = drift + EVALUATION_ROUNDINGS * rounding + OUTPUT_ROUNDINGS * arithmetic.output
    total = weight[:, None, None] * (off + relative * size) + slack[:, None, None] * size
    return total.flatten(1) + arithmetic.smallest_output * max(1.0, box_gain, third_gain)


def _distribution(held: Held, spec: LossSpec, rounding: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """R > 1: slope of a side in its logits, and of the cross-entropy (H, 4, R), each as magnitude and rounding."""
    bins = torch.arange(spec.reg_max, dtype=torch.float64)
    rows = held.logits.unflatten(1, (4, spec.reg_max))
    share = rows.softmax(-1)
    # The argument of the exponential is rounded where it is formed, so that a small share is less precise.
    shares = share * rounding * (EVALUATION_ROUNDINGS + 2 * (rows.amax(-1, keepdim=True) - rows))
    away = bins - held.sides[..., None]
    clamped, target_slack = _clamped(held, spec, rounding)
    target = (1 - (bins - clamped[..., None]).abs()).clamp(min=0)
    touched = (bins - clamped[..., None]).abs() < 1 + target_slack[..., None]
    steep_slack = shares * away.abs() + share * (held.predicted_slack[..., None] + EVALUATION_ROUNDINGS * rounding * bins)
    third_slack = shares + EVALUATION_ROUNDINGS * rounding * target + target_slack[..., None] * touched
    return share * away.abs(), steep_slack, share + target, third_slack


def _distance(held: Held, spec: LossSpec) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """R = 1: the same (H, 4, 1); the sign of the difference may be any where rounding hides it."""
    scale = (held.strides[:, None] / held.image_size)[..., None] * spec.distance_term
    hidden = ((held.sides - held.target).abs() <= held.target_slack)[..., None]
    one = torch.ones_like(scale)
    return one, torch.zeros_like(one), scale, scale * 2 * hidden
