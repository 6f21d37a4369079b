"""The terms that tasks add to detection's, by the keys that their definitions name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from twinloss.terms.angle import angle
from twinloss.terms.held import HeldAnchors

TERMS: dict[str, Callable[[HeldAnchors], Tensor]] = {"angle": angle}
"""Each returns a scalar in the dtype of the arithmetic, without gain and number of images; where nothing is held, 0 in the graph of what it
reads."""

WEIGHTED = frozenset({"box", "cls", "dfl", "angle"})
"""Sums over weights, which are divided by S; all others are means of their own."""
