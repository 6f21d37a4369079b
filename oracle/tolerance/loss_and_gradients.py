"""Tolerances of the loss and its gradients, by their conditioning.

Each is a first-order bound: unit roundoffs times the magnitudes that are rounded, propagated through the formulas of spec section 7.
:mod:`oracle.tolerance.held_anchors` bounds the errors at each held anchor; this module adds them up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from oracle.contract.contender import Batch, Preds
from oracle.definition.criterion import ExactCriterion
from oracle.tolerance.held_anchors import (
    ENTROPY_ROUNDINGS,
    EVALUATION_ROUNDINGS,
    OUTPUT_ROUNDINGS,
    Bounds,
    box_part,
    boxes_gradient,
    held_anchors,
    third_term,
)
from oracle.tolerance.precision import Precision
from twinloss import Assignment, LossSpec

LOGIT_ROUNDINGS = 3.0  # Of a logit, in an entropy that is computed as the difference of two numbers of its size.
UNDECIDED = 0.1  # Share of a soft target beyond which its tolerance comes of a decision: roundings are far smaller.
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
        further: bounds on the gradients of the predictions that a task adds, by name, in their shapes.
    """

    loss: Tensor
    boxes: Bounds
    held_score: Tensor
    score_share: float
    score_per_logit: float
    smallest: float
    largest: float
    further: Mapping[str, Bounds] = field(default_factory=dict)


@dataclass(frozen=True)
class Assigned:
    """An assignment of H entries, and the factors of the terms.

    Attributes:
        exact: the definition.
        preds, batch: predictions and targets, on the CPU.
        assignment: the entries, with the definition's soft targets t, float64.
        tolerance: (H,) of the soft targets: 0 where they were given to the contender.
        share, share_tolerance: (H,) factor of each anchor in the box and distribution terms, and its tolerance.
        scale: gain · B / S of each term, by name.
        drift: relative rounding of S.
        precision: the contender's unit roundoffs.
    """

    exact: ExactCriterion
    preds: Preds
    batch: Batch
    assignment: Assignment
    tolerance: Tensor
    share: Tensor
    share_tolerance: Tensor
    scale: Mapping[str, float]
    drift: float
    precision: Precision

    @property
    def spec(self) -> LossSpec:
        """The numbers of the definition."""
        return self.exact.spec

    @cached_property
    def undecided(self) -> Tensor:
        """Soft targets (H,) that are another where a decision falls otherwise."""
        return _undecided(self.assignment.weight.double(), self.tolerance)

    @property
    def gains(self) -> dict[str, float]:
        """Gain · B of each term, by name."""
        images = len(self.preds["boxes"])
        return {name: gain * images for name, gain in zip(self.spec.terms, self.spec.term_gains, strict=True)}


class HeldTerms(NamedTuple):
    """Terms that are sums of value · share / S over the held anchors, and the gradients that flow through them.

    Attributes:
        values: value (H,) and its tolerance (H,) of each term, by name.
        boxes: bounds on the gradient of the box logits (H, 4R).
        further: bounds on the gradients of further predictions, by name, in their shapes.
    """

    values: Mapping[str, tuple[Tensor, Tensor]]
    boxes: Bounds
    further: Mapping[str, Bounds]


class FurtherTerms(NamedTuple):
    """Tolerances of the terms that a task adds otherwise, with their gain and B, and bounds on the gradients that flow through them."""

    loss: Mapping[str, Tensor]
    gradients: Mapping[str, Bounds]


class TermSteps:
    """The steps of :func:`outcome_tolerance` that depend on the task; these are for upright boxes and no further terms."""

    def held_terms(self, assigned: Assigned, *, roughly: bool = False) -> HeldTerms:
        """Returns box term, distribution or distance term, and their gradients; ``roughly``: faster, for boxes that are not tiny."""
        spec, precision = assigned.spec, assigned.precision
        held = held_anchors(assigned.exact, assigned.preds, assigned.batch, assigned.assignment, precision)
        rounding = max(precision.corner, precision.evaluation)
        part = box_part(held, spec.ciou_eps, rounding, one_at_a_time=roughly)
        gains = assigned.scale["box"], assigned.scale["dfl"]
        values = {"box": ((1 - part.overlap).abs(), part.overlap_tolerance), "dfl": third_term(held, spec, rounding)}
        bounds = boxes_gradient(held, part, assigned.share, assigned.share_tolerance, gains, spec, precision, assigned.drift)
        return HeldTerms(values, bounds, {})

    def further_terms(self, assigned: Assigned) -> FurtherTerms:
        """Returns the tolerances of the terms that the task adds, and of their gradients."""
        return FurtherTerms({}, {})


_DETECTION = TermSteps()


@torch.no_grad()
def outcome_tolerance(
    exact: ExactCriterion,
    preds: Preds,
    batch: Batch,
    assignment: Assignment,
    tolerance: Tensor,
    classification: float,
    precision: Precision,
    steps: TermSteps = _DETECTION,
) -> OutcomeTolerance:
    """Returns the tolerances of the loss and its gradients on an assignment.

    Args:
        exact: the definition.
        preds: predictions, on the CPU.
        batch: targets, on the CPU.
        assignment: H entries with the definition's soft targets t, float64.
        tolerance: (H,) of the soft targets: 0 where they were given to the contender.
        classification: the classification term of the loss on this assignment, times gain and images.
        precision: the contender's unit roundoffs.
        steps: the task's.
    """
    spec, weight, tolerance = exact.spec, assignment.weight.double(), tolerance.double()
    normaliser, drift = _normaliser(weight, tolerance, assignment.box, precision)
    scale = {name: gain * len(preds["boxes"]) / normaliser for name, gain in zip(spec.terms, spec.term_gains, strict=True)}
    shares = _shares(weight, tolerance, assignment.box, spec)
    assigned = Assigned(exact, preds, batch, assignment, tolerance, *shares, scale, drift, precision)
    held, further = steps.held_terms(assigned), steps.further_terms(assigned)
    loss = {name: _sum_over_held(name, *values, assigned) for name, values in held.values.items()}
    loss |= {"cls": _classification(assigned, abs(classification)), **further.loss}
    return OutcomeTolerance(
        loss=torch.stack([loss[name] for name in spec.terms]),
        boxes=held.boxes,
        held_score=_held_scores(assigned),
        score_share=_score_relative(assigned),
        score_per_logit=2 * max(precision.score, precision.evaluation),
        smallest=precision.smallest_output * max(1.0, scale["cls"]),
        largest=precision.largest_output,
        further={**held.further, **further.gradients},
    )


def _sum_over_held(name: str, value: Tensor, off: Tensor, assigned: Assigned) -> Tensor:
    """Returns the tolerance of the term that is the sum of value · share / S, times gain and B, for values (H,) with tolerances (H,)."""
    row, precision, gain = assigned.assignment.box, assigned.precision, assigned.scale[name]
    rounding = max(precision.corner, precision.evaluation)
    relative = assigned.drift + summation_roundings(len(row)) * rounding + EVALUATION_ROUNDINGS * precision.core
    lost = max(gain, 1.0) * len(row) * precision.smallest_core
    errors = (assigned.share + assigned.share_tolerance) * off + value * assigned.share_tolerance
    uncertain = _error_of_sum(errors, row, assigned.undecided)
    return gain * (uncertain + (value * assigned.share).sum() * relative) + lost


def _class_factors(spec: LossSpec) -> Tensor:
    """Returns the class weights (C,)."""
    return torch.tensor(spec.class_weights or (1.0,) * spec.num_classes, dtype=torch.float64)


def _own_scores(assigned: Assigned) -> tuple[Tensor, Tensor]:
    """Returns the score (H,) of each entry's class, and the class."""
    held, labels = assigned.assignment, assigned.batch["cls"].reshape(-1).long()
    label: Tensor = labels[held.box]
    return assigned.preds["scores"].detach()[held.image, label, held.anchor].double(), label


def _classification(assigned: Assigned, value: float) -> Tensor:
    """Returns the tolerance of the classification term, of which ``value`` is the magnitude."""
    precision, gain, weight = assigned.precision, assigned.scale["cls"], assigned.assignment.weight.double()
    (score, label), classes, scores = _own_scores(assigned), _class_factors(assigned.spec), assigned.preds["scores"].detach()
    rounding = max(precision.score, precision.evaluation)
    roundings = ENTROPY_ROUNDINGS + summation_roundings(scores.numel())
    relative = assigned.drift + roundings * rounding + EVALUATION_ROUNDINGS * precision.core
    # The framework's formula subtracts a logarithm from the logit: each element has the logit's rounding error.
    elementwise = LOGIT_ROUNDINGS * rounding * _root_sum_of_squares(scores.double() * classes[:, None])
    each = classes[label] * score.abs() * (assigned.tolerance + ENTROPY_ROUNDINGS * rounding * (1 + weight))
    targets = _error_of_sum(each, assigned.assignment.box, assigned.undecided)
    lost = max(gain, 1.0) * scores.numel() * precision.smallest_score
    found: Tensor = gain * (targets + elementwise) + value * relative + lost
    return found


def _held_scores(assigned: Assigned) -> Tensor:
    """Returns the tolerance (H,) of the gradient of the score of each held anchor's class."""
    precision, (score, label) = assigned.precision, _own_scores(assigned)
    probability = score.sigmoid()
    rounding = max(precision.score, precision.evaluation)
    off = assigned.tolerance + rounding * (EVALUATION_ROUNDINGS + 2 * score.abs()) * probability
    off = off + _score_relative(assigned) * (probability + assigned.assignment.weight.double() + assigned.tolerance)
    return assigned.scale["cls"] * _class_factors(assigned.spec)[label] * off + precision.smallest_output


def _score_relative(assigned: Assigned) -> float:
    """Returns the tolerance of a score's gradient relative to its parts."""
    precision = assigned.precision
    return assigned.drift + EVALUATION_ROUNDINGS * max(precision.score, precision.evaluation) + OUTPUT_ROUNDINGS * precision.output


def _normaliser(weight: Tensor, tolerance: Tensor, box: Tensor, precision: Precision) -> tuple[float, float]:
    """Returns S and its relative rounding."""
    total = float(weight.sum())
    off = float(_error_of_sum(tolerance, box, _undecided(weight, tolerance)))
    off += EVALUATION_ROUNDINGS * max(precision.score, precision.evaluation) * total
    normaliser = max(total, 1.0)
    return normaliser, min(off, max(total + off - 1, 0.0)) / normaliser


def _shares(weight: Tensor, tolerance: Tensor, box: Tensor, spec: LossSpec) -> tuple[Tensor, Tensor]:
    """Returns the factor (H,) of each anchor in the box and third terms, with its tolerance: its t, or in one older definition the sum."""
    if spec.anchor_weights == "own":
        return weight, tolerance
    return weight.sum().expand_as(weight), _error_of_sum(tolerance, box, _undecided(weight, tolerance)).expand_as(weight)


def _undecided(weight: Tensor, tolerance: Tensor) -> Tensor:
    """Returns the soft targets (H,) whose tolerance is no rounding but another decision, such as on a mask's pixel at the threshold."""
    return tolerance > UNDECIDED * (weight + tolerance)


def _error_of_sum(parts: Tensor, box: Tensor, undecided: Tensor) -> Tensor:
    """Returns the error of a sum, from errors (H,).

    Roundings of one box have one source and add up; those of several are independent. What is ``undecided`` (H,) a program may decide alike
    everywhere: such errors add up.
    """
    if len(parts) == 0:
        return parts.new_zeros(())
    per_box = parts.new_zeros(int(box.max()) + 1).index_add(0, box, parts.masked_fill(undecided, 0))
    return per_box.square().sum().sqrt() + parts[undecided].sum()


def _root_sum_of_squares(values: Tensor) -> float:
    """Returns the root of the sum of squares of values, where equal ones, which have equal roundings, are added up first.

    For a large tensor it is estimated from a sample.
    """
    step = max(values.numel() // _SAMPLE, 1)
    distinct, counts = values.reshape(-1)[::step].unique(return_counts=True)
    repeated = counts > 1
    single, several = (distinct * counts)[~repeated].square().sum(), (distinct * counts)[repeated].square().sum()
    return float((single * step + several * step**2).sqrt())


def summation_roundings(count: int) -> float:
    """Returns the roundings of a sum of ``count`` terms, added up pairwise or in blocks."""
    return 1.0 + math.log2(max(count, 1)) / 2
