"""The assignment of a contender that shows none, read from its gradients (spec section 7).

Only open anchors are in question: at the others the right answer is known, and a wrong one will show in the numbers. The gradient of a
score is sigmoid(x) · w · gain · B / S where there is no target, which gives S; what is missing from that elsewhere is the soft target, in
the class of the box that holds the anchor. The gradient of the boxes is zero, exactly, at every anchor that nothing holds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from oracle.arithmetic import unit_roundoff
from oracle.decisions import NOBODY, Allowed
from oracle.definition import Definition
from oracle.holdings import Holdings
from oracle.margins import Floats, Ints
from oracle.run import Outcome
from twinloss import LossSpec

_ROUNDINGS = 16.0  # Of a gradient and of S, before a target counts as seen.
_HELD = 0.5  # Share of the weight that an anchor would have, from which on it counts as held.


def infer_holdings(outcome: Outcome, allowed: Allowed, exact: Holdings, definition: Definition) -> Holdings:
    """Holdings that a contender's gradients show.

    Args:
        outcome: the contender's.
        allowed: what it may answer.
        exact: the definition's answer: it stands wherever no other is allowed.
        definition: the case.

    Returns:
        The holdings, with rough weights where they are not the definition's.
    """
    margins = allowed.margins
    holder = exact.holder(margins.images * margins.anchors)
    weight = np.zeros(len(holder))
    weight[exact.cell] = exact.weight
    seen = _targets(outcome.grad_scores, definition)
    support = (outcome.grad_boxes != 0).any(1).numpy().reshape(-1)
    expected = _expected_weights(allowed, definition.case.spec)
    options = np.bincount(margins.pairs.cell[allowed.pair], minlength=len(holder))
    for cell in np.flatnonzero((options > 1) | ((options == 1) & allowed.nobody)):
        holder[cell], weight[cell] = _most_likely(
            int(cell), (int(holder[cell]), float(weight[cell])), allowed, expected, seen, held=bool(support[cell])
        )
    (cells,) = np.nonzero(holder != NOBODY)
    box = holder[cells]
    return Holdings(cells, box, margins.boxes.row[box], np.maximum(weight[cells], np.finfo(np.float64).tiny))


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


def _expected_weights(allowed: Allowed, spec: LossSpec) -> Floats:
    """Soft targets (P,) that pairs would have, had each box all that it may hold."""
    pairs, groups = allowed.margins.pairs, len(allowed.margins.boxes.row)
    largest = np.zeros((2, groups))
    for values, best in zip((pairs.metric, pairs.overlap), largest, strict=True):
        np.maximum.at(best, pairs.box[allowed.pair], values[allowed.pair])
    metric, overlap = largest[:, pairs.box]
    weight: Floats = pairs.metric * overlap / (metric + spec.assign_eps)
    return weight


def _most_likely(cell: int, own: tuple[int, float], allowed: Allowed, expected: Floats, seen: _Seen, *, held: bool) -> tuple[int, float]:
    """Box, or ``NOBODY``, and weight that explain the targets seen at an anchor best; where that does not decide the definition's ``own``.

    ``held`` says that the gradient of the boxes shows the anchor held; where predictions are perfect it shows nothing.
    """
    pairs, boxes = allowed.margins.pairs, allowed.margins.boxes
    (here,) = np.nonzero((pairs.cell == cell) & allowed.pair)
    image, anchor = divmod(cell, allowed.margins.anchors)
    label: Ints = boxes.label[pairs.box[here]]
    target, noise = (values[image, label, anchor] for values in seen)
    # One class has a target, and no other: the largest. Of its boxes the one that would weigh about as much is meant.
    best = here[label == label[target.argmax()]]
    weight, unsure = float(target.max()), float(noise[target.argmax()])
    least = float(expected[best].min())
    if allowed.nobody[cell] and not held and (least < 2 * unsure or weight < _HELD * least):
        return own if least < 2 * unsure else (NOBODY, 0.0)
    off = np.abs(np.where(pairs.box[best] == own[0], own[1], expected[best]) - weight)
    if (mine := off[pairs.box[best] == own[0]]).size and mine[0] <= off.min() + max(unsure, 0.1 * weight):
        return own
    return int(pairs.box[best[off.argmin()]]), weight
