"""What kind of fault a difference looks like: a guess for the reader of a finding, never a part of the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from oracle.contract.run import Outcome
from oracle.judge.loss_and_gradients import Standard
from oracle.judge.worst_elements import Peaks
from oracle.tolerance.allowed_assignments import NOBODY, Allowed
from oracle.tolerance.margins import Ints
from twinloss import LossSpec

_SAME = 1e-3  # Two factors are the same when they agree to this.


def loss_hint(outcome: Outcome, standard: Standard, found: Mapping[str, Peaks], spec: LossSpec) -> str:
    """The fault that wrong losses and gradients suggest, or an empty text.

    Args:
        outcome: the contender's.
        standard: what it was held against.
        found: its worst elements, by quantity.
        spec: the definition.
    """
    if not bool(outcome.loss.isfinite().all()):
        return "an overflow, or a logarithm or quotient of 0"
    wrong = [peak.group for peak in found["loss"].peaks if peak.ratio > 1]
    gradients = {name: {peak.group for peak in found[name].peaks if peak.ratio > 1} for name in ("gradient of boxes", "gradient of scores")}
    if wrong and not any(gradients.values()):
        return "values that are computed otherwise than the gradients: only the loss itself is wrong"
    if any(gradients.values()) and not wrong:
        return _gradient_hint(gradients, found)
    factors = {
        name: float(value / truth)
        for name, value, truth in zip(spec.term_names, outcome.loss, standard.truth.loss, strict=True)
        if abs(float(truth)) > 0
    }
    return _factor_hint(factors, wrong, standard, outcome)


def _gradient_hint(gradients: Mapping[str, set[str]], found: Mapping[str, Peaks]) -> str:
    """Values are right, gradients are not."""
    boxes, scores = gradients["gradient of boxes"], gradients["gradient of scores"]
    if "anchors that are not held" in boxes:
        return "a gradient at anchors that nothing holds"
    levels = {peak.group for peak in found["gradient of boxes"].peaks if peak.group.startswith("level")}
    where = f" on {', '.join(sorted(boxes))} alone" if boxes and boxes < levels else ""
    if boxes and not scores:
        return f"a gradient of the boxes that is not the loss's: something that is not detached, or that is{where}"
    return "a gradient of the scores that is not the loss's" if scores and not boxes else "gradients that are not the loss's"


def _factor_hint(factors: Mapping[str, float], wrong: list[str], standard: Standard, outcome: Outcome) -> str:
    """Terms are off by a factor: all by the same, or one alone."""
    values = list(factors.values())
    images = len(outcome.grad_boxes)
    weights = standard.assignment.weight
    if len(wrong) == len(factors) > 1 and all(_alike(value, values[0]) for value in values):
        names = {
            1 / images: "a loss that is not multiplied by the number of images",
            float(images): "a loss that is multiplied by the number of images twice",
            max(float(weights.sum()), 1.0)
            / max(len(weights), 1): "a loss divided by the number of held anchors instead of the sum of targets",
        }
        known = [text for factor, text in names.items() if factor != 1 and _alike(values[0], factor)]
        return known[0] if known else f"another normaliser: every term is {values[0]:.6g} times what it should be"
    if len(wrong) == 1 and wrong[0] in factors:
        return f"another gain, mean or sum in {wrong[0]} alone, which is {factors[wrong[0]]:.6g} times what it should be"
    return ""


def _alike(value: float, other: float) -> bool:
    return math.isclose(value, other, rel_tol=_SAME)


def assignment_hint(allowed: Allowed, truth: Ints, answer: Ints, forbidden: Ints, topk: int) -> str:
    """The fault that wrong holders suggest, or an empty text.

    Args:
        allowed: margins, pairs and what may be answered.
        truth, answer: (B·A,) holders by the definition and by the contender.
        forbidden: anchors that the contender may not have answered so.
        topk: K.
    """
    lost, extra = forbidden[answer[forbidden] == NOBODY], forbidden[truth[forbidden] == NOBODY]
    swapped = np.setdiff1d(forbidden, np.union1d(lost, extra))
    pairs = allowed.margins.pairs
    if swapped.size and swapped.size >= forbidden.size / 2:
        return _conflict_hint(allowed, truth, answer, swapped)
    if extra.size and not lost.size:
        strangers = allowed.lookup(extra, answer[extra]) < 0
        if strangers.all():
            return "anchors that are no candidates of their box: another test of what lies inside it"
        return f"more than {topk} candidates kept for a box, or no second cut"
    if lost.size and not extra.size:
        held = allowed.lookup(lost, truth[lost])
        places = np.array([1 + int(((pairs.box == pairs.box[p]) & (pairs.metric > pairs.metric[p])).sum()) for p in held])
        return f"fewer than {topk} candidates kept for a box" if (places >= topk - 1).all() else "candidates that are lost"
    return "another alignment metric: other anchors rank first" if lost.size and extra.size else ""


def _conflict_hint(allowed: Allowed, truth: Ints, answer: Ints, cells: Ints) -> str:
    """Anchors that the contender gives to another box than the definition."""
    pairs = allowed.margins.pairs
    right, chosen = allowed.lookup(cells, truth[cells]), allowed.lookup(cells, answer[cells])
    if (chosen < 0).any():
        return "anchors given to boxes of which they are no candidates"
    if (allowed.picked[chosen] & ~allowed.possible[right]).all():
        return "conflicts settled among the boxes that picked the anchor, not among all of which it is a candidate"
    if (pairs.metric[chosen] > pairs.metric[right]).all():
        return "conflicts settled by the metric instead of the overlap"
    if (answer[cells] < truth[cells]).all():
        return "conflicts given to the first box"
    return "conflicts given to the last box" if (answer[cells] > truth[cells]).all() else "another rule for conflicts"
