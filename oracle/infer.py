"""The assignment of a contender that shows none, read from its gradients (spec section 7).

Only open anchors are in question: at the others the right answer is known, and a wrong one will show in the numbers. The gradient of a
score is sigmoid(x) · w · gain · B / S where there is no target, which gives S; what is missing from that elsewhere is the soft target, in
the class of the box that holds the anchor. The gradient of the boxes is zero, exactly, at every anchor that nothing holds.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from oracle.decisions import NOBODY, Allowed
from oracle.definition import Definition
from oracle.holdings import Holdings
from oracle.margins import Floats, Ints
from oracle.run import Outcome
from twinloss import LossSpec


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
    target = _targets(outcome.grad_scores, definition)
    support = (outcome.grad_boxes != 0).any(1).numpy().reshape(-1)
    expected = _expected_weights(allowed, definition.case.spec)
    options = np.bincount(margins.pairs.cell[allowed.pair], minlength=len(holder))
    for cell in np.flatnonzero((options > 1) | ((options == 1) & allowed.nobody)):
        holder[cell], weight[cell] = _most_likely(int(cell), int(holder[cell]), allowed, expected, target, held=bool(support[cell]))
    (cells,) = np.nonzero(holder != NOBODY)
    box = holder[cells]
    return Holdings(cells, box, margins.boxes.row[box], np.maximum(weight[cells], np.finfo(np.float64).tiny))


def _targets(gradient: Tensor, definition: Definition) -> Floats:
    """Soft targets (B, C, A), as far as the gradient of the scores shows them."""
    spec = definition.case.spec
    factors = torch.ones(spec.num_classes) if spec.class_weights is None else torch.tensor(spec.class_weights)
    scale = factors.double()[:, None] * spec.gains[1] * definition.case.batch_size
    probability = definition.scores.sigmoid()
    full = probability * scale
    usable = (full > 0) & gradient.isfinite() & (gradient > 0)
    # Held entries are few, so that the median belongs to the others; the largest entries are the best resolved.
    clear = usable & (full >= full[usable].median()) if bool(usable.any()) else usable
    share = float((gradient[clear] / full[clear]).median()) if bool(clear.any()) else 1.0
    target: Floats = (probability - gradient / (share * scale)).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).numpy()
    return target


def _expected_weights(allowed: Allowed, spec: LossSpec) -> Floats:
    """Soft targets (P,) that pairs would have, had each box all that it may hold."""
    pairs, groups = allowed.margins.pairs, len(allowed.margins.boxes.row)
    largest = np.zeros((2, groups))
    for values, best in zip((pairs.metric, pairs.overlap), largest, strict=True):
        np.maximum.at(best, pairs.box[allowed.pair], values[allowed.pair])
    metric, overlap = largest[:, pairs.box]
    weight: Floats = pairs.metric * overlap / (metric + spec.assign_eps)
    return weight


def _most_likely(cell: int, own: int, allowed: Allowed, expected: Floats, target: Floats, *, held: bool) -> tuple[int, float]:
    """Box, or ``NOBODY``, and weight that explain the targets seen at an anchor best; of equals the definition's own."""
    pairs, boxes = allowed.margins.pairs, allowed.margins.boxes
    (here,) = np.nonzero((pairs.cell == cell) & allowed.pair)
    image, anchor = divmod(cell, allowed.margins.anchors)
    label: Ints = boxes.label[pairs.box[here]]
    seen = target[image, label, anchor]
    # An option explains the targets of its own class up to its weight, and none of the others.
    unexplained = [float((np.where(label == c, seen - w, seen) ** 2).sum()) for c, w in zip(label, expected[here], strict=True)]
    answers = [(cost, int(g) != own, int(g), float(w)) for cost, g, w in zip(unexplained, pairs.box[here], expected[here], strict=True)]
    if allowed.nobody[cell] and not held:
        answers.append((float((seen**2).sum()), own != NOBODY, NOBODY, 0.0))
    _, _, box, weight = min(answers)
    return box, weight
