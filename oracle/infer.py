"""The assignment of a contender that shows none, read from its gradients (spec section 7).

Only open anchors are in question: at the others the right answer is known, and a wrong one will show in the numbers. The gradient of a
score is sigmoid(x) · w · gain · B / S where there is no target, which gives S; what is missing from that elsewhere is the soft target, in
the class of the box that holds the anchor. The gradient of the boxes is zero, exactly, at every anchor that nothing holds, and elsewhere
points where the box is that holds it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from oracle.arithmetic import unit_roundoff
from oracle.decisions import NOBODY, Allowed
from oracle.definition import Definition
from oracle.formulas import ciou, corners_of, distance_term, distances, distribution_term
from oracle.holdings import Holdings, Weights
from oracle.margins import Floats, Ints
from oracle.run import Outcome
from twinloss import LossSpec

_ROUNDINGS = 16.0  # Of a gradient and of S, before a target counts as seen.
_LIKE = 1e-3  # Cosines that differ by less tell nothing apart.
_PERFECT = 0.99  # Overlap of a prediction from which on the direction of its gradient tells nothing.
_HELD = 0.5  # Share of the weight that an anchor would have, from which on it counts as held.


def infer_holdings(outcome: Outcome, allowed: Allowed, exact: Holdings, demanded: Weights, definition: Definition) -> Holdings:
    """Holdings that a contender's gradients show.

    Args:
        outcome: the contender's.
        allowed: what it may answer.
        exact: the definition's answer: it stands wherever no other is allowed.
        demanded: its weights.
        definition: the case.

    Returns:
        The holdings, with rough weights where they are not the definition's.
    """
    margins = allowed.margins
    holder = exact.holder(margins.images * margins.anchors)
    weight, slack = np.zeros(len(holder)), np.zeros(len(holder))
    weight[exact.cell], slack[exact.cell] = demanded.value, demanded.slack
    seen = _targets(outcome.grad_scores, definition)
    support = (outcome.grad_boxes != 0).any(1).numpy().reshape(-1)
    expected = _expected_weights(allowed, definition.case.spec)
    likeness = _likeness(outcome.grad_boxes, allowed, definition)
    options = np.bincount(margins.pairs.cell[allowed.pair], minlength=len(holder))
    for cell in np.flatnonzero((options > 1) | ((options == 1) & allowed.nobody)):
        holder[cell], weight[cell] = _most_likely(
            int(cell),
            _Own(int(holder[cell]), float(weight[cell]), float(slack[cell])),
            allowed,
            expected,
            likeness,
            seen,
            held=bool(support[cell]),
        )
    (cells,) = np.nonzero(holder != NOBODY)
    box = holder[cells]
    return Holdings(cells, box, margins.boxes.row[box], np.maximum(weight[cells], np.finfo(np.float64).tiny))


class _Own(NamedTuple):
    """The definition's answer at an anchor: box, or ``NOBODY``, with its weight and the rounding of that."""

    box: int
    weight: float
    slack: float


class _Seen(NamedTuple):
    """Soft targets (B, C, A) as far as the gradient of the scores shows them, and below which they are lost in its rounding."""

    target: Floats
    noise: Floats


def _targets(gradient: Tensor, definition: Definition) -> _Seen:
    spec = definition.case.spec
    factors = torch.ones(spec.num_classes) if spec.class_weights is None else torch.tensor(spec.class_weights)
    scale = factors.double()[:, None] * spec.gains[1] * definition.case.batch_size
    probability = definition.scores.sigmoid()
    full = probability * scale
    usable = (full > 0) & gradient.isfinite() & (gradient > 0)
    # Held entries are few, so that the median belongs to the others; the largest entries are the best resolved.
    clear = usable & (full >= full[usable].median()) if bool(usable.any()) else usable
    share = float((gradient[clear] / full[clear]).median()) if bool(clear.any()) else 1.0
    target = (probability - gradient / (share * scale)).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    noise = _ROUNDINGS * unit_roundoff(definition.setting.torch_dtype) * probability
    return _Seen(target.numpy(), noise.numpy())


def _likeness(gradient: Tensor, allowed: Allowed, definition: Definition) -> Floats:
    """Cosine (P,) between the gradient of an anchor's box logits and what it would be if the pair's box held it; 0 for pairs that may not.

    The gradient's direction depends on the box alone, not on weights or S, and so tells boxes of one class apart. Where a prediction is
    all but perfect its gradient is made of kinks, and the box is taken for likely.
    """
    spec, pairs, boxes = definition.case.spec, allowed.margins.pairs, allowed.margins.boxes
    answer = np.zeros(len(pairs))
    (some,) = np.nonzero(allowed.pair)
    image, anchor = np.divmod(pairs.cell[some], allowed.margins.anchors)
    logits = definition.inputs.preds["boxes"].detach()[image, :, anchor].double().requires_grad_()
    centres, strides = definition.grid.centres[anchor], definition.grid.strides[anchor]
    corners = torch.from_numpy(boxes.corners[pairs.box[some]]) / strides[:, None]
    sides = distances(logits, spec.reg_max)
    target = torch.cat([centres - corners[:, :2], corners[:, 2:] - centres], dim=1)
    if spec.reg_max > 1:
        third = distribution_term(logits, target, spec)
    else:
        third = distance_term(sides, target, strides, definition.case.image_size) * spec.distance_term
    box = 1 - ciou(corners_of(sides, centres), corners, spec.ciou_eps)
    (own,) = torch.autograd.grad((spec.gains[0] * box + spec.gains[2] * third).sum(), logits)
    answer[pairs.overlap > _PERFECT] = 1.0
    answer[some] = np.maximum(answer[some], torch.cosine_similarity(own, gradient[image, :, anchor].nan_to_num(), dim=1).numpy())
    return answer


def _expected_weights(allowed: Allowed, spec: LossSpec) -> Floats:
    """Soft targets (P,) that pairs would have, had each box all that it may hold."""
    pairs, groups = allowed.margins.pairs, len(allowed.margins.boxes.row)
    largest = np.zeros((2, groups))
    for values, best in zip((pairs.metric, pairs.overlap), largest, strict=True):
        np.maximum.at(best, pairs.box[allowed.pair], values[allowed.pair])
    metric, overlap = largest[:, pairs.box]
    weight: Floats = pairs.metric * overlap / (metric + spec.assign_eps)
    return weight


def _most_likely(
    cell: int, own: _Own, allowed: Allowed, expected: Floats, likeness: Floats, seen: _Seen, *, held: bool
) -> tuple[int, float]:
    """Box, or ``NOBODY``, and weight that explain the targets seen at an anchor best; where that does not decide the definition's ``own``.

    ``likeness`` (P,) says how well the gradient of the boxes fits each pair, ``held`` that it shows the anchor held; where predictions are
    perfect it shows nothing.
    """
    pairs, boxes = allowed.margins.pairs, allowed.margins.boxes
    (here,) = np.nonzero((pairs.cell == cell) & allowed.pair)
    here = here[likeness[here] >= likeness[here].max() - _LIKE]
    image, anchor = divmod(cell, allowed.margins.anchors)
    label: Ints = boxes.label[pairs.box[here]]
    target, noise = (values[image, label, anchor] for values in seen)
    # One class has a target, and no other: the largest, or the definition's own where rounding hides which that is.
    clearest = int(target.argmax())
    (mine,) = np.nonzero(pairs.box[here] == own.box)
    if mine.size and target[mine[0]] + max(noise[mine[0]], noise[clearest]) >= target[clearest]:
        clearest = int(mine[0])
    best = here[label == label[clearest]]
    weight, unsure = float(target[clearest]), float(noise[clearest])
    least = float(expected[best].min())
    if allowed.nobody[cell] and not held and (least < 2 * unsure or weight < _HELD * least):
        return (own.box, own.weight) if least < 2 * unsure else (NOBODY, 0.0)
    # Of the boxes of that class the one that would weigh about as much is meant.
    if own.box in pairs.box[best] and abs(own.weight - weight) <= max(unsure, own.slack):
        return own.box, own.weight
    return int(pairs.box[best[np.abs(expected[best] - weight).argmin()]]), weight
