"""The assignment of a contender that shows none, read from its gradient of scores (spec section 7).

Where nothing is held the gradient of a score is sigmoid(x) · w · gain · B / S, which gives S; what is missing from it elsewhere is the soft
target, which stands at the held anchor, in the class of its box.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from oracle.decisions import NOBODY, Allowed
from oracle.definition import Definition
from oracle.holdings import Holdings
from oracle.margins import Ints
from oracle.run import Outcome

# A target below this share of what float32 resolves beside the probability is not seen.
_SEEN = 64


def infer_holdings(outcome: Outcome, allowed: Allowed, exact: Holdings, definition: Definition) -> Holdings | None:
    """Holdings that the gradient of scores shows, those of the definition where it cannot decide between two boxes.

    Args:
        outcome: the contender's.
        allowed: what it may answer: among boxes of the seen class, an allowed one is meant.
        exact: the definition's answer.
        definition: the case.

    Returns:
        The holdings; ``None`` where the gradient has no entry from which S could be read.
    """
    spec = definition.case.spec
    factors = torch.ones(spec.num_classes) if spec.class_weights is None else torch.tensor(spec.class_weights)
    scale = factors.double()[:, None] * spec.gains[1] * definition.case.batch_size
    probability = definition.scores.sigmoid()
    full = probability * scale
    target, noise = _targets(outcome.grad_scores, full, scale, probability, definition)
    if target is None or noise is None:
        return None
    seen = target > noise
    image, label, anchor = (part.numpy() for part in seen.nonzero(as_tuple=True))
    cell = image * allowed.margins.anchors + anchor
    weight = target[seen].numpy()
    if len(np.unique(cell)) < len(cell):
        return None
    box = _boxes(allowed, exact, cell, label)
    # What is too small to be seen is granted as the definition has it.
    hidden = ~np.isin(exact.cell, cell) & ~_visible(noise, exact, definition, allowed)
    cell = np.concatenate([cell, exact.cell[hidden]])
    box = np.concatenate([box, exact.box[hidden]])
    weight = np.concatenate([weight, exact.weight[hidden]])
    order = np.argsort(cell)
    rows = allowed.margins.boxes.row
    row = np.where(box[order] >= 0, rows[np.maximum(box[order], 0)], NOBODY) if len(rows) else box[order]
    return Holdings(cell[order], box[order], row, weight[order])


def _targets(
    gradient: Tensor, full: Tensor, scale: Tensor, probability: Tensor, definition: Definition
) -> tuple[Tensor | None, Tensor | None]:
    """Soft targets (B, C, A) and below which magnitude (B, C, A) they are lost in rounding."""
    usable = (full > 0) & gradient.isfinite() & (gradient > 0)
    if not usable.any():
        return None, None
    # Held entries are few, so that the median belongs to the others; the largest entries are the best resolved.
    clear = usable & (full >= full[usable].median())
    share = float((gradient[clear] / full[clear]).median())
    if not share > 0:
        return None, None
    target = probability - gradient / (share * scale)
    eps = torch.finfo(definition.setting.torch_dtype).eps
    return target, _SEEN * max(eps, torch.finfo(torch.float32).eps) * (probability + 1e-3)


def _boxes(allowed: Allowed, exact: Holdings, cell: Ints, label: Ints) -> Ints:
    """The box (n,) meant by a class at each anchor: the definition's own if it is of that class, else an allowed one, else nobody."""
    pairs, boxes = allowed.margins.pairs, allowed.margins.boxes
    own = exact.holder(allowed.margins.images * allowed.margins.anchors)
    answer = np.full(len(cell), NOBODY, dtype=np.int64)
    for n, (at, c) in enumerate(zip(cell, label, strict=True)):
        here = pairs.box[(pairs.cell == at) & allowed.pair]
        options = here[boxes.label[here] == c] if len(here) else here
        answer[n] = own[at] if own[at] in options else options[0] if len(options) else NOBODY
    return answer


def _visible(noise: Tensor, exact: Holdings, definition: Definition, allowed: Allowed) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each entry (H,) of the definition's holdings would show if the contender had it."""
    image, anchor = np.divmod(exact.cell, allowed.margins.anchors)
    label = definition.labels.numpy()[exact.row]
    floor = noise.numpy()[image, label, anchor]
    seen: np.ndarray[tuple[int], np.dtype[np.bool_]] = exact.weight > floor
    return seen
