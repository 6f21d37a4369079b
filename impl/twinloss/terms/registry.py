"""The terms that tasks add to detection's, by the keys that their definitions name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from twinloss.terms import masks, semantic
from twinloss.terms.angle import angle
from twinloss.terms.held import HeldAnchors
from twinloss.terms.pose import keypoint_likelihood_term, keypoint_visibility_term, pose_term

TERMS: dict[str, Callable[[HeldAnchors], Tensor]] = {
    "angle": angle,
    "mask": masks.term_of_call,
    "semantic": semantic.term_of_call,
    "pose": pose_term,
    "kobj": keypoint_visibility_term,
    "likelihood": keypoint_likelihood_term,
}
"""Each returns a scalar in the dtype of the arithmetic, without gain and number of images; where nothing is held, 0 in the graph of what it
reads."""

WEIGHTED = frozenset({"box", "cls", "dfl", "angle"})
"""Sums over weights, which are divided by S; all others are means of their own."""
