"""Compares the gradients at an anchor with those that each box would produce if it held the anchor (spec sections 7, 8).

Where a box holds an anchor with soft target w, sigmoid(x) of its class's score x, and S the sum of all soft targets:

    gradient of the box logits  =  w · B / S · box_gradient                          (direction depends on the box alone)
    gradient of the score       =  B / S · score_gradient · (sigmoid(x) − w)         (score_gradient = gain · class weight)

At an anchor without box the first is exactly 0 and the second has w = 0: it shows B / S. Example: score_gradient = 0.5, B / S = 1,
x = 2, so that sigmoid(x) = 0.8808. An observed score gradient of 0.3347 means w = 0.8808 − 0.3347 / 0.5 = 0.2113; one of 0.4404 means
w = 0. The first also follows from a box gradient of −1.808 where the box's own would be −8.557: both agree, so the box fits.

A *misfit* is |observed − computed| divided by the rounding of the computed value. The likelihood model takes that rounding as the standard
deviation of a Gaussian: a hypothesis whose tolerance is wide, as at a kink of the CIoU, fits easily and is therefore penalised.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from oracle.contract.run import Outcome
from oracle.definition.assignment_trace import UNASSIGNED
from oracle.judge.truth import DefinitionAnswers
from oracle.tolerance.allowed_assignments import AllowedAssignments, TieRules
from oracle.tolerance.held_anchors import EVALUATION_ROUNDINGS
from oracle.tolerance.intervals import Floats
from oracle.tolerance.loss_and_gradients import Assigned, HeldTerms
from oracle.tolerance.margins import Bools, Ints
from oracle.tolerance.precision import Precision
from twinloss import Assignment, LossSpec

_DRIFT = 8.0  # Roundings of a rate and of a weight that were computed from gradients.
_LEAST_WEIGHT = 1e-100
_CANNOT_VANISH = 32.0  # Roundings of a gain beyond which a gradient cannot round to 0.


class WeightInterval(NamedTuple):
    """Soft targets (Q,) of pairs, and the interval in which rounding leaves them."""

    value: Floats
    low: Floats
    high: Floats


class Misfit(NamedTuple):
    """Distance (Q,) of the observed gradients from those that each pair would produce, in roundings.

    Attributes:
        weight_deviation: distance of the weight that fits best from the expected interval, relative to the expected weight.
        expected: largest misfit of the box gradient and of the class's score, for the weight of the interval that fits best.
        fitted: the same for the weight that fits best, in the interval or not.
        unassigned: misfit of the class's score if no box of that class holds the anchor.
        nll: negative log-likelihood of the observed gradients under Gaussian rounding errors, for the weight of ``expected``.
        cannot_vanish: whether the box gradient is too large for rounding to make all of it 0.
    """

    weight_deviation: Floats
    expected: Floats
    fitted: Floats
    unassigned: Floats
    nll: Floats
    cannot_vanish: Bools


@dataclass(frozen=True)
class PairEvidence:
    """Observed and computed gradients at pairs of an open anchor and a box that may hold it: Q pairs.

    Attributes:
        pair: (Q,) index into the margins' pairs.
        label: (Q,) class of each pair's box.
        box_gradient: (Q, 4R) gradient of the box logits that the pair produces, for weight 1 and B / S = 1.
        box_tolerance: (Q, 4R) its rounding.
        least_gradient: (Q,) largest element of ``box_gradient`` that no rounding can make 0; an element at a kink counts as 0.
        observed_boxes: (Q, 4R) observed gradient of the box logits at the anchor.
        observed_score: (Q,) observed gradient of the score of the pair's class.
        score_gradient: (Q,) gradient of that score for a probability of 1 without target, and B / S = 1.
        term_values: (Q, T) what the pair adds to each term of the loss, for weight 1 and B / S = 1; 0 for classification.
        logit: (Q,) the score.
        rate: B / S as the scores' gradients show it, or ``None`` where they do not.
        gain: the larger of the gains of the box term and the distribution or distance term.
        roundoff: relative rounding of the gradients.
        smallest: magnitude below which a gradient may underflow.
    """

    pair: Ints
    label: Ints
    box_gradient: Floats
    box_tolerance: Floats
    least_gradient: Floats
    observed_boxes: Floats
    observed_score: Floats
    score_gradient: Floats
    term_values: Floats
    logit: Floats
    rate: float | None
    gain: float
    roundoff: float
    smallest: float

    @np.errstate(divide="ignore", over="ignore", invalid="ignore")  # A misfit may overflow.
    def misfit(self, expected: WeightInterval, rate: float) -> Misfit:
        """Returns how well each pair explains the observed gradients, given the expected weights and ``rate``, B / S."""
        fitted = self._fitted_weight(expected, rate)
        within = np.clip(fitted, expected.low, expected.high)
        weight_deviation = np.abs(fitted - within) / np.maximum(expected.value, _LEAST_WEIGHT)
        cannot_vanish = (self.least_gradient > _CANNOT_VANISH * self.roundoff * self.gain) & (
            rate * expected.low * self.least_gradient > 4 * self.smallest
        )
        unassigned = self._score_misfit(np.zeros_like(within), rate)
        return Misfit(
            weight_deviation,
            self._largest_misfit(within, rate),
            self._largest_misfit(fitted, rate),
            unassigned,
            self._nll(within, rate),
            cannot_vanish,
        )

    def _fitted_weight(self, expected: WeightInterval, rate: float) -> Floats:
        """Returns the weight (Q,) that fits the observed gradients best, by weighted least squares."""
        value = np.maximum(expected.value, _LEAST_WEIGHT)
        boxes, score = self._tolerances(value, rate)
        scale = rate * self.score_gradient
        missing = scale / (1 + np.exp(-self.logit)) - self.observed_score
        # Division by the rounding comes before the square: for a class of weight 0 the score's is the smallest number of the dtype.
        unit_boxes, unit_score = rate * self.box_gradient / boxes, scale / score
        product = (unit_boxes * (self.observed_boxes / boxes)).sum(1) + unit_score * (missing / score)
        square = (unit_boxes**2).sum(1) + unit_score**2
        # The expected weight counts as one more observation, with a standard deviation of its own size.
        weight = (product + 1 / value) / (square + 1 / value**2)
        fitted: Floats = np.maximum(np.nan_to_num(weight), 0)
        return fitted

    def _tolerances(self, weight: Floats, rate: float) -> tuple[Floats, Floats]:
        """Returns the rounding of the gradients of the box logits (Q, 4R) and of the score (Q,) for given weights (Q,)."""
        p, scale = 1 / (1 + np.exp(-self.logit)), rate * self.score_gradient
        boxes = rate * weight[:, None] * (self.box_tolerance + _DRIFT * self.roundoff * np.abs(self.box_gradient)) + self.smallest
        relative = (EVALUATION_ROUNDINGS + _DRIFT + 2 * np.abs(self.logit)) * p + 2 * _DRIFT * weight
        return boxes, scale * self.roundoff * relative + self.smallest

    def _largest_misfit(self, weight: Floats, rate: float) -> Floats:
        """Returns the largest misfit (Q,) over box logits and score, for given weights (Q,)."""
        tolerance = self._tolerances(weight, rate)[0]
        boxes = _nan_to_inf(np.abs(self.observed_boxes - rate * weight[:, None] * self.box_gradient) / tolerance).max(1)
        largest: Floats = np.maximum(boxes, self._score_misfit(weight, rate))
        return largest

    def _nll(self, weight: Floats, rate: float) -> Floats:
        """Returns the negative log-likelihood (Q,) for given weights (Q,), less a constant."""
        tolerance, score_tolerance = self._tolerances(weight, rate)
        boxes = ((self.observed_boxes - rate * weight[:, None] * self.box_gradient) / tolerance) ** 2 / 2 + np.log(tolerance)
        # The bins of a side share their roundings: together they count as one observation.
        sides = 4 * boxes.mean(1)
        answer: Floats = np.nan_to_num(sides + self._score_misfit(weight, rate) ** 2 / 2 + np.log(score_tolerance), nan=np.inf)
        return answer

    def _score_misfit(self, weight: Floats, rate: float) -> Floats:
        """Returns the misfit (Q,) of the score alone."""
        right = rate * self.score_gradient * (1 / (1 + np.exp(-self.logit)) - weight)
        return _nan_to_inf(np.abs(self.observed_score - right) / self._tolerances(weight, rate)[1])


def _nan_to_inf(ratio: Floats) -> Floats:
    return np.nan_to_num(ratio, nan=np.inf, posinf=np.inf)


def pair_evidence(
    outcome: Outcome, allowed: AllowedAssignments, pair: Ints, definition: DefinitionAnswers, precision: Precision
) -> PairEvidence:
    """Returns observed and computed gradients at pairs.

    Args:
        outcome: the contender's loss and gradients, on the CPU.
        allowed: the assignments that it may give.
        pair: (Q,) indices into the margins' pairs.
        definition: the definition's answers for the case.
        precision: the contender's.
    """
    spec, margins = definition.case.spec, allowed.margins
    image, anchor = np.divmod(margins.pairs.cell[pair], margins.anchors)
    box = margins.boxes
    group = margins.pairs.box[pair]
    label = box.label[group]
    one = torch.ones(len(pair), dtype=torch.float64)
    every = Assignment(torch.from_numpy(image), torch.from_numpy(anchor), torch.from_numpy(box.row[group]), one)
    factors = np.ones(spec.num_classes) if spec.class_weights is None else np.array(spec.class_weights, dtype=np.float64)
    gains = dict(zip(spec.terms, spec.term_gains, strict=True))
    score_gradient = gains["cls"] * factors
    images = definition.case.batch_size
    smallest = precision.smallest_output * max(1.0, *gains.values()) * images
    assigned = Assigned(definition.exact(TieRules()), *definition.inputs, every, 0 * one, one, 0 * one, gains, 0.0, precision)
    # An estimate of the tolerance suffices here, because an inferred assignment is judged afterwards; there may be very many pairs.
    with torch.no_grad():
        held = definition.steps.terms.held_terms(assigned, roughly=True)
    box_gradient = _unit_gradient(assigned, ("box", "dfl"))
    box_tolerance = held.boxes.rounding + torch.maximum(-held.boxes.below, held.boxes.above)
    # At a kink of the overlap the gradient may be 0; that of the distribution term has no kink.
    steady = _unit_gradient(assigned, ("dfl",)).abs() if spec.reg_max > 1 else box_gradient.abs() - box_tolerance
    return PairEvidence(
        pair=pair,
        label=label,
        box_gradient=box_gradient.numpy(),
        box_tolerance=box_tolerance.numpy(),
        least_gradient=steady.amax(1).numpy(),
        observed_boxes=outcome.gradients["boxes"][image, :, anchor].numpy(),
        observed_score=outcome.gradients["scores"][image, label, anchor].numpy(),
        score_gradient=score_gradient[label],
        term_values=_term_values(held, gains, len(pair)).numpy(),
        logit=definition.scores[image, label, anchor].numpy(),
        rate=_rate(outcome.gradients["scores"], allowed, definition, torch.from_numpy(score_gradient)),
        gain=max(gains["box"], gains["dfl"]),
        roundoff=max(precision.score, precision.evaluation, precision.output),
        smallest=smallest,
    )


def _unit_gradient(assigned: Assigned, terms: Collection[str]) -> Tensor:
    """Returns the gradient (Q, 4R) of the box logits through some terms, for weight 1 and B / S = 1."""
    exact, preds, one = assigned.exact, assigned.preds, assigned.share
    grid = exact.grid(preds)
    held = exact.held(preds, grid, exact.truth(preds, assigned.batch), assigned.assignment)
    logits = held.logits.detach().clone().requires_grad_()
    found = exact.box_terms(preds, grid, held._replace(logits=logits, weight=one, share=one, normaliser=torch.ones(())))
    (gradient,) = torch.autograd.grad(torch.stack([assigned.scale[name] * found[name] for name in terms]).sum(), logits)
    return gradient


def _term_values(held: HeldTerms, gains: Mapping[str, float], pairs: int) -> Tensor:
    """Returns what each pair adds to each term (Q, T), for weight 1 and B / S = 1; 0 for a term that is not a sum over the pairs."""
    none = torch.zeros(pairs, dtype=torch.float64)
    return torch.stack([gain * held.values[name][0] if name in held.values else none for name, gain in gains.items()], 1)


def _rate(gradient: Tensor, allowed: AllowedAssignments, definition: DefinitionAnswers, score_gradient: Tensor) -> float | None:
    """Returns B / S from the scores that can have no target, or ``None`` without such; large gradients have the least relative error."""
    full = definition.scores.sigmoid() * score_gradient[:, None]
    pairs, margins = allowed.margins.pairs, allowed.margins
    image, anchor = np.divmod(pairs.cell[allowed.pair], margins.anchors)
    full[image, margins.boxes.label[pairs.box[allowed.pair]], anchor] = 0
    usable = (full > 0) & gradient.isfinite() & (gradient > 0)
    if not bool(usable.any()):
        return None
    clear = usable & (full >= full[usable].median())
    return float((gradient[clear] / full[clear]).median())


def weight_intervals(allowed: AllowedAssignments, pair: Ints, holder: Ints, spec: LossSpec) -> WeightInterval:
    """Returns soft targets of pairs (Q,), each added to what its box holds in the assignment ``holder`` (B·A,) [5.7]."""
    pairs, groups = allowed.margins.pairs, len(allowed.margins.boxes.row)
    (cell,) = np.nonzero(holder != UNASSIGNED)
    at = allowed.margins.lookup(cell, holder[cell])
    at = at[at >= 0]

    def largest(values: Floats) -> Floats:
        answer = np.zeros(groups)
        np.maximum.at(answer, pairs.box[at], values[at])
        both: Floats = np.maximum(answer[pairs.box[pair]], values[pair])
        return both

    m, m_low, m_high = (largest(values) for values in (pairs.metric, pairs.metric_low, pairs.metric_high))
    o, o_low, o_high = (largest(values) for values in (pairs.overlap, pairs.overlap_low, pairs.overlap_high))
    value = pairs.metric[pair] * o / (m + spec.assign_eps)
    low = pairs.metric_low[pair] * o_low / (m_high + spec.assign_eps)
    high = np.minimum(pairs.metric_high[pair] * o_high / (m_low + spec.assign_eps), o_high)
    return WeightInterval(value, np.minimum(low, value), np.maximum(high, value))
