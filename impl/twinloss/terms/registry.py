"""The terms that tasks add to detection's, by the keys that their definitions name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from twinloss.spec import LossSpec
from twinloss.terms import masks, semantic
from twinloss.terms.angle import angle
from twinloss.terms.held import HeldAnchors
from twinloss.terms.pose import keypoint_likelihood_term, keypoint_visibility_term, pose_term

if TYPE_CHECKING:
    from twinloss.backends.call import Call

TermOfCall = Callable[[HeldAnchors], Tensor]

TERMS: dict[str, TermOfCall] = {
    "angle": angle,
    "mask": masks.term_of_call,
    "semantic": semantic.term_of_call,
    "pose": pose_term,
    "kobj": keypoint_visibility_term,
    "likelihood": keypoint_likelihood_term,
}
"""Each returns a scalar in the dtype of the arithmetic, without gain and number of images; where nothing is held, 0 in the graph of what it
reads."""

WEIGHTED = frozenset({"angle"})
"""Sums over weights, which are divided by S; all others are means of their own."""

DETECTION_TERMS = ("box", "cls", "dfl")


def in_order(spec: LossSpec, terms: Mapping[str, Tensor]) -> Tensor:
    """Scalar terms by key as a vector (T,), in the order of the definition.

    >>> in_order(LossSpec(num_classes=1), {"dfl": torch.tensor(3.0), "cls": torch.tensor(2.0), "box": torch.tensor(1.0)}).tolist()
    [1.0, 2.0, 3.0]
    """
    return torch.stack([terms[key] for key in spec.terms])


def further_terms(
    held: HeldAnchors, computed: tuple[str, ...], own: Callable[[str, Call], TermOfCall | None] = lambda *_: None
) -> dict[str, Tensor]:
    """The terms of the definition that are not computed yet, each times its gain, by key; a backend's own functions come first."""
    found = {}
    for key, gain in zip(held.spec.terms, held.spec.term_gains, strict=True):
        if key not in computed:
            term = (own(key, held.call) or TERMS[key])(held)
            found[key] = (term / held.normaliser if key in WEIGHTED else term) * gain
    return found
