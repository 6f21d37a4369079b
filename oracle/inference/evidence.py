"""What the gradients at an anchor would be if this box or that one held it, and which of them explain what was seen (spec sections 7, 8).

The gradient of the boxes is zero, exactly, at every anchor that nothing holds; elsewhere it points where the box is, whatever S is and the
weight, and is as long as w · B / S makes it. The gradient of a score is sigmoid(x) · gain · B / S where there is no target, which gives
B / S, and less by the soft target in the class of the box that holds the anchor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from oracle.contract.run import Outcome
from oracle.definition.formulas import ciou, corners_of, distance_term, distances, distribution_term
from oracle.judge.truth import Definition
from oracle.tolerance.allowed_assignments import NOBODY, Allowed, Rules
from oracle.tolerance.held_anchors import EVALUATION_ROUNDINGS, Held, box_part, boxes_gradient, held_anchors
from oracle.tolerance.margins import Bools, Floats, Ints
from oracle.tolerance.precision import Arithmetic
from twinloss import Assignment, LossSpec

_DRIFT = 8.0  # Roundings of a rate and of a weight that were read from gradients.
_LEAST_WEIGHT = 1e-100
_LOUD = 32.0  # Roundings of a gain beyond which a gradient can not round to 0.


class Expected(NamedTuple):
    """Soft targets (Q,) that pairs would have, and the interval that rounding leaves them."""

    value: Floats
    low: Floats
    high: Floats


class Explained(NamedTuple):
    """How far gradients are, by pair (Q,), from what they would be, in units of rounding.

    Attributes:
        off: by how much the weight that the gradients show lies beyond the interval expected, relative to it.
        expected: farthest of the boxes' gradient and of its own class's score, if the box holds the anchor with a weight of that interval.
        fitted: the same with the weight that fits best.
        without: of the class's score, if no box of the class holds the anchor.
        surprise: of the gradients seen, were rounding a bell curve, if the box holds the anchor with the weight of ``expected``: an
            explanation that fits because it leaves anything open, as at a kink, is a bad one.
        loud: whether no rounding can make all of the boxes' gradient 0 if the box holds the anchor.
    """

    off: Floats
    expected: Floats
    fitted: Floats
    without: Floats
    surprise: Floats
    loud: Bools


@dataclass(frozen=True)
class Clues:
    """Gradients at pairs that may hold their anchor: Q pairs.

    Attributes:
        pair: (Q,) index into the margins' pairs.
        label: (Q,) class of each pair's box.
        pull: (Q, 4R) gradient of the box logits that the pair gives, with weight 1 and B / S = 1; ``doubt`` (Q, 4R) is its rounding.
        least: (Q,) largest element of that which no rounding can make 0: none at a kink.
        seen: (Q, 4R) gradient of the box logits at the anchor; ``seen_score`` (Q,) of the score of the pair's class.
        push: (Q,) gradient of that score for a probability of 1 and B / S = 1.
        worth: (Q, 3) what the pair adds to each term of the loss, with weight 1 and B / S = 1, if its score tells nothing.
        logit: (Q,) the score.
        rate: B / S as the scores show it, or ``None`` where they show nothing.
        gain: the larger one of boxes and third term.
        roundoff, smallest: of the gradients: relative, and below which one may be lost.
    """

    pair: Ints
    label: Ints
    pull: Floats
    doubt: Floats
    least: Floats
    seen: Floats
    seen_score: Floats
    push: Floats
    worth: Floats
    logit: Floats
    rate: float | None
    gain: float
    roundoff: float
    smallest: float

    def explained(self, expected: Expected, rate: float) -> Explained:
        """How well each pair explains what was seen, given B / S and the weights expected."""
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # What is nowhere near may overflow.
            return self._explained(expected, rate)

    def _explained(self, expected: Expected, rate: float) -> Explained:
        fitted = self._fitted(expected, rate)
        within = np.clip(fitted, expected.low, expected.high)
        off = np.abs(fitted - within) / np.maximum(expected.value, _LEAST_WEIGHT)
        loud = (self.least > _LOUD * self.roundoff * self.gain) & (rate * expected.low * self.least > 4 * self.smallest)
        without = self._score(np.zeros_like(within), rate)
        return Explained(off, self._farthest(within, rate), self._farthest(fitted, rate), without, self._surprise(within, rate), loud)

    def _fitted(self, expected: Expected, rate: float) -> Floats:
        """Weight with which the gradients are as they were seen, each by its precision; as expected where they show none."""
        value = np.maximum(expected.value, _LEAST_WEIGHT)
        boxes, score = self._slack(value, rate)
        scale = rate * self.push
        missing = scale / (1 + np.exp(-self.logit)) - self.seen_score
        # Each is divided by its rounding before it is squared: a class of weight 0 leaves a score nothing but the least number there is.
        pulled, pushed = rate * self.pull / boxes, scale / score
        shown = (pulled * (self.seen / boxes)).sum(1) + pushed * (missing / score)
        trust = (pulled**2).sum(1) + pushed**2
        # The weight expected counts as one more observation, and a vague one.
        weight = (shown + 1 / value) / (trust + 1 / value**2)
        fitted: Floats = np.maximum(np.nan_to_num(weight), 0)
        return fitted

    def _slack(self, weight: Floats, rate: float) -> tuple[Floats, Floats]:
        """Rounding of the gradients of boxes (Q, 4R) and of the score (Q,) where a box holds the anchor with such a weight."""
        p, scale = 1 / (1 + np.exp(-self.logit)), rate * self.push
        boxes = rate * weight[:, None] * (self.doubt + _DRIFT * self.roundoff * np.abs(self.pull)) + self.smallest
        relative = (EVALUATION_ROUNDINGS + _DRIFT + 2 * np.abs(self.logit)) * p + 2 * _DRIFT * weight
        return boxes, scale * self.roundoff * relative + self.smallest

    def _farthest(self, weight: Floats, rate: float) -> Floats:
        """Farthest of the gradients at each pair with such weights."""
        slack = self._slack(weight, rate)[0]
        boxes = _number(np.abs(self.seen - rate * weight[:, None] * self.pull) / slack).max(1)
        farthest: Floats = np.maximum(boxes, self._score(weight, rate))
        return farthest

    def _surprise(self, weight: Floats, rate: float) -> Floats:
        slack, score_slack = self._slack(weight, rate)
        boxes = ((self.seen - rate * weight[:, None] * self.pull) / slack) ** 2 / 2 + np.log(slack)
        # The bins of a side share their roundings, so that together they tell no more than one.
        sides = 4 * boxes.mean(1)
        answer: Floats = np.nan_to_num(sides + self._score(weight, rate) ** 2 / 2 + np.log(score_slack), nan=np.inf)
        return answer

    def _score(self, weight: Floats, rate: float) -> Floats:
        """Of the score alone."""
        right = rate * self.push * (1 / (1 + np.exp(-self.logit)) - weight)
        return _number(np.abs(self.seen_score - right) / self._slack(weight, rate)[1])


def _number(ratio: Floats) -> Floats:
    return np.nan_to_num(ratio, nan=np.inf, posinf=np.inf)


def clues_of(outcome: Outcome, allowed: Allowed, pair: Ints, definition: Definition, arithmetic: Arithmetic) -> Clues:
    """What the gradients show about some pairs (Q,).

    Args:
        outcome: the contender's.
        allowed: what it may answer, with the pairs.
        pair: which pairs.
        definition: the case.
        arithmetic: the contender's.
    """
    spec, margins = definition.case.spec, allowed.margins
    image, anchor = np.divmod(margins.pairs.cell[pair], margins.anchors)
    box = margins.boxes
    group = margins.pairs.box[pair]
    label = box.label[group]
    one = torch.ones(len(pair), dtype=torch.float64)
    every = Assignment(torch.from_numpy(image), torch.from_numpy(anchor), torch.from_numpy(box.row[group]), one)
    held = held_anchors(definition.exact(Rules()), *definition.inputs, every, arithmetic)
    factors = np.ones(spec.num_classes) if spec.class_weights is None else np.array(spec.class_weights, dtype=np.float64)
    push = spec.gains[1] * factors
    images = definition.case.batch_size
    smallest = arithmetic.smallest_output * max(1.0, *spec.gains) * images
    (pull, worth), doubt = _pull(held, spec, spec.gains[0]), _doubt(held, spec, arithmetic)
    # A side that is right has no gradient through the overlap, and rounding decides whether it is; a distribution's own has no kink.
    steady = _pull(held, spec, 0.0)[0].abs() if spec.reg_max > 1 else pull.abs() - doubt
    return Clues(
        pair=pair,
        label=label,
        pull=pull.numpy(),
        doubt=doubt.numpy(),
        least=steady.amax(1).numpy(),
        seen=outcome.grad_boxes[image, :, anchor].numpy(),
        seen_score=outcome.grad_scores[image, label, anchor].numpy(),
        push=push[label],
        worth=worth.numpy(),
        logit=held.score.numpy(),
        rate=_rate(outcome.grad_scores, allowed, definition, torch.from_numpy(push)),
        gain=max(spec.gains[0], spec.gains[2]),
        roundoff=max(arithmetic.score, arithmetic.evaluation, arithmetic.output),
        smallest=smallest,
    )


def _pull(held: Held, spec: LossSpec, box_gain: float) -> tuple[Tensor, Tensor]:
    """Gradient (Q, 4R) of the box logits that each entry gives with weight 1 and B / S = 1, and the terms (Q, 3), of which it is."""
    logits = held.logits.clone().requires_grad_()
    sides = distances(logits, spec.reg_max)
    box = 1 - ciou(corners_of(sides, held.centres), held.corners, spec.ciou_eps)
    if spec.reg_max > 1:
        third = distribution_term(logits, held.target, spec)
    else:
        width, height = held.image_size[:2].tolist()
        third = distance_term(sides, held.target, held.strides, (height, width)) * spec.distance_term
    terms = torch.stack([box_gain * box, torch.zeros_like(box), spec.gains[2] * third], 1)
    (pull,) = torch.autograd.grad(terms.sum(), logits)
    return pull, terms.detach()


def _doubt(held: Held, spec: LossSpec, arithmetic: Arithmetic) -> Tensor:
    """Rounding (Q, 4R) of the pull, at a kink as wide as what it may be there."""
    one = torch.ones(len(held.logits), dtype=torch.float64)
    # Readings are told apart roughly, and judged like what is shown; there may be very many pairs.
    part = box_part(held, spec.ciou_eps, max(arithmetic.corner, arithmetic.evaluation), roughly=True)
    bounds = boxes_gradient(held, part, one, torch.zeros_like(one), (spec.gains[0], spec.gains[2]), spec, arithmetic, 0.0)
    return bounds.rounding + torch.maximum(-bounds.below, bounds.above)


def _rate(gradient: Tensor, allowed: Allowed, definition: Definition, push: Tensor) -> float | None:
    """B / S from the scores at which there can be no target; the largest of them are the best resolved."""
    full = definition.scores.sigmoid() * push[:, None]
    pairs, margins = allowed.margins.pairs, allowed.margins
    image, anchor = np.divmod(pairs.cell[allowed.pair], margins.anchors)
    full[image, margins.boxes.label[pairs.box[allowed.pair]], anchor] = 0
    usable = (full > 0) & gradient.isfinite() & (gradient > 0)
    if not bool(usable.any()):
        return None
    clear = usable & (full >= full[usable].median())
    return float((gradient[clear] / full[clear]).median())


def expected_weights(allowed: Allowed, pair: Ints, holder: Ints, spec: LossSpec) -> Expected:
    """Soft targets of pairs (Q,), had their boxes these pairs too besides what they hold by ``holder`` (B·A,) [5.7]."""
    pairs, groups = allowed.margins.pairs, len(allowed.margins.boxes.row)
    (cell,) = np.nonzero(holder != NOBODY)
    at = allowed.lookup(cell, holder[cell])
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
    return Expected(value, np.minimum(low, value), np.maximum(high, value))
