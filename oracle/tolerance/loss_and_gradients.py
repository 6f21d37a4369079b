"""Tolerances of the loss and its gradients, by their conditioning.

Each is a first-order bound: unit roundoffs times the magnitudes that are rounded, propagated through the formulas of spec section 7.
:mod:`oracle.tolerance.held_anchors` bounds the errors at each held anchor; this module adds them up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from oracle.contract.contender import Batch, Preds
from oracle.definition.criterion import ExactCriterion
from oracle.tolerance.held_anchors import (
    ENTROPY_ROUNDINGS,
    EVALUATION_ROUNDINGS,
    OUTPUT_ROUNDINGS,
    Bounds,
    BoxPart,
    HeldAnchors,
    box_part,
    boxes_gradient,
    held_anchors,
    third_term,
)
from oracle.tolerance.precision import Precision
from twinloss import Assignment, LossSpec

LOGIT_ROUNDINGS = 3.0  # Of a logit, in an entropy that is computed as the difference of two numbers of its size.
_SAMPLE = 1 << 16


@dataclass(frozen=True)
class OutcomeTolerance:
    """Tolerances of the loss and its gradients on one assignment of H entries.

    Attributes:
        loss: (T,) of the terms.
        boxes: bounds (H, 4R) on the gradient of the box logits at held anchors; elsewhere it is exactly zero.
        held_score: (H,) of the gradient of the score of each held anchor's class.
        score_share: of the gradient of any other score, relative to it.
        score_per_logit: the same, for each unit of the logit's magnitude.
        smallest: magnitude below which a gradient may underflow.
        largest: magnitude beyond which a gradient overflows to infinity in every program.
    """

    loss: Tensor
    boxes: Bounds
    held_score: Tensor
    score_share: float
    score_per_logit: float
    smallest: float
    largest: float


@dataclass(frozen=True)
class _Scale:
    """Factors of the terms: gain · B / S of each, the relative rounding of S, and the class weights (C,)."""

    gains: tuple[float, float, float]
    drift: float
    classes: Tensor


@torch.no_grad()
def outcome_tolerance(
    exact: ExactCriterion,
    preds: Preds,
    batch: Batch,
    assignment: Assignment,
    tolerance: Tensor,
    classification: float,
    precision: Precision,
) -> OutcomeTolerance:
    """Returns the tolerances of the loss and its gradients on an assignment.

    Args:
        exact: the definition.
        preds: logits, on the CPU.
        batch: targets, on the CPU.
        assignment: H entries with the definition's soft targets t, float64.
        tolerance: (H,) of the soft targets: 0 where they were given to the contender.
        classification: the classification term of the loss on this assignment, times gain and images.
        precision: the contender's unit roundoffs.
    """
    spec = exact.spec
    weight, tolerance = assignment.weight.double(), tolerance.double()
    held = held_anchors(exact, preds, batch, assignment, precision)
    normaliser, drift = _normaliser(weight, tolerance, assignment.box, precision)
    box_gain, cls_gain, third_gain = (gain * len(preds["boxes"]) / normaliser for gain in spec.gains)
    factors = torch.ones(spec.num_classes) if spec.class_weights is None else torch.tensor(spec.class_weights, dtype=torch.float64)
    scale = _Scale((box_gain, cls_gain, third_gain), drift, factors.double())
    share, share_tolerance = _shares(weight, tolerance, assignment.box, spec)
    part = box_part(held, spec.ciou_eps, max(precision.corner, precision.evaluation))
    box, third = _held_terms(held, part, assignment.box, (share, share_tolerance), scale, spec, precision)
    entropy = _classification(held, assignment.box, (weight, tolerance), scale, preds["scores"].detach(), abs(classification), precision)
    rounding = max(precision.score, precision.evaluation)
    return OutcomeTolerance(
        loss=torch.stack([box, entropy, third]),
        boxes=boxes_gradient(held, part, share, share_tolerance, (box_gain, third_gain), spec, precision, drift),
        held_score=_held_scores(held, weight, tolerance, scale, precision),
        score_share=_score_relative(scale, precision),
        score_per_logit=2 * rounding,
        smallest=precision.smallest_output * max(1.0, cls_gain),
        largest=precision.largest_output,
    )


def _held_terms(
    held: HeldAnchors, part: BoxPart, row: Tensor, shares: tuple[Tensor, Tensor], scale: _Scale, spec: LossSpec, precision: Precision
) -> tuple[Tensor, Tensor]:
    """Returns the tolerances of the box term and of the third."""
    rounding = max(precision.corner, precision.evaluation)
    relative = scale.drift + _summation_roundings(len(row)) * rounding + EVALUATION_ROUNDINGS * precision.core
    share, share_tolerance = shares
    answers = []
    terms = ((1 - part.overlap).abs(), part.overlap_tolerance), third_term(held, spec, rounding)
    for gain, (value, off) in zip((scale.gains[0], scale.gains[2]), terms, strict=True):
        lost = max(gain, 1.0) * len(row) * precision.smallest_core
        answers.append(gain * (_error_of_sum(share * off + value * share_tolerance, row) + (value * share).sum() * relative) + lost)
    return answers[0], answers[1]


def _classification(
    held: HeldAnchors, row: Tensor, weights: tuple[Tensor, Tensor], scale: _Scale, scores: Tensor, value: float, precision: Precision
) -> Tensor:
    """Returns the tolerance of the classification term, of which ``value`` is the magnitude."""
    (weight, tolerance), gain = weights, scale.gains[1]
    rounding = max(precision.score, precision.evaluation)
    logit = held.score.abs()
    relative = scale.drift + (ENTROPY_ROUNDINGS + _summation_roundings(scores.numel())) * rounding + EVALUATION_ROUNDINGS * precision.core
    # The framework's formula subtracts a logarithm from the logit: each element has the logit's rounding error.
    elementwise = LOGIT_ROUNDINGS * rounding * _root_sum_of_squares(scores.double() * scale.classes[:, None])
    targets = _error_of_sum(scale.classes[held.label] * logit * (tolerance + ENTROPY_ROUNDINGS * rounding * (1 + weight)), row)
    return gain * (targets + elementwise) + value * relative + max(gain, 1.0) * scores.numel() * precision.smallest_score


def _held_scores(held: HeldAnchors, weight: Tensor, tolerance: Tensor, scale: _Scale, precision: Precision) -> Tensor:
    """Returns the tolerance (H,) of the gradient of the score of each held anchor's class."""
    rounding = max(precision.score, precision.evaluation)
    probability = held.score.sigmoid()
    off = tolerance + rounding * (EVALUATION_ROUNDINGS + 2 * held.score.abs()) * probability
    off = off + _score_relative(scale, precision) * (probability + weight)
    return scale.gains[1] * scale.classes[held.label] * off + precision.smallest_output


def _score_relative(scale: _Scale, precision: Precision) -> float:
    """Returns the tolerance of a score's gradient relative to its parts."""
    return scale.drift + EVALUATION_ROUNDINGS * max(precision.score, precision.evaluation) + OUTPUT_ROUNDINGS * precision.output


def _normaliser(weight: Tensor, tolerance: Tensor, box: Tensor, precision: Precision) -> tuple[float, float]:
    """Returns S and its relative rounding."""
    total = float(weight.sum())
    off = float(_error_of_sum(tolerance, box)) + EVALUATION_ROUNDINGS * max(precision.score, precision.evaluation) * total
    normaliser = max(total, 1.0)
    return normaliser, min(off, max(total + off - 1, 0.0)) / normaliser


def _shares(weight: Tensor, tolerance: Tensor, box: Tensor, spec: LossSpec) -> tuple[Tensor, Tensor]:
    """Returns the factor (H,) of each anchor in the box and third terms, with its tolerance: its t, or in one older definition the sum."""
    if spec.anchor_weights == "own":
        return weight, tolerance
    return weight.sum().expand_as(weight), _error_of_sum(tolerance, box).expand_as(weight)


def _error_of_sum(parts: Tensor, box: Tensor) -> Tensor:
    """Returns the error of a sum, from errors (H,): those of one box share its roundings and add up, others are independent."""
    if len(parts) == 0:
        return parts.new_zeros(())
    per_box = parts.new_zeros(int(box.max()) + 1).index_add(0, box, parts)
    return per_box.square().sum().sqrt()


def _root_sum_of_squares(values: Tensor) -> float:
    """Returns the root of the sum of squares of values, where equal ones, which have equal roundings, are added up first.

    For a large tensor it is estimated from a sample.
    """
    step = max(values.numel() // _SAMPLE, 1)
    distinct, counts = values.reshape(-1)[::step].unique(return_counts=True)
    repeated = counts > 1
    single, several = (distinct * counts)[~repeated].square().sum(), (distinct * counts)[repeated].square().sum()
    return float((single * step + several * step**2).sqrt())


def _summation_roundings(count: int) -> float:
    """Returns the roundings of a sum of ``count`` terms, added up pairwise or in blocks."""
    return 1.0 + math.log2(max(count, 1)) / 2
