"""Bounds on the loss terms when several assignments produce the same gradients.

A prediction that is exact to the last bit has no gradient: whichever of several such anchors a box holds, the gradients are the same, and
so is S. The terms differ, because the cross-entropy of an exact distribution is its entropy, not 0. The bounds hold for a given S.

Two anchors of soft target 0.5, of which the box holds one; the first would add 2 to a term, the second 3:

>>> first, second = (Alternatives(np.array([0.5, 0]), np.array([[value], [0]]), k) for k, value in enumerate((2.0, 3.0)))
>>> [bound.tolist() for bound in term_bounds([first, second])]  # below, above
[[0.0], [1.0]]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oracle.tolerance.intervals import Floats


class Alternatives(NamedTuple):
    """The boxes that may hold one anchor with the same gradients: O of them, one of which may stand for no box.

    Attributes:
        weight: (O,) soft targets; 0 for no box.
        term_values: (O, T) what each adds to the T terms.
        chosen: index of the one that was inferred.
    """

    weight: Floats
    term_values: Floats
    chosen: int


class TermBounds(NamedTuple):
    """By how much the terms (T,) may be ``below`` and ``above`` those of the inferred assignment; both are at least 0."""

    below: Floats
    above: Floats


NO_ALTERNATIVES = TermBounds(np.zeros(()), np.zeros(()))


def term_bounds(anchors: Sequence[Alternatives]) -> TermBounds:
    """Returns bounds over all choices that leave S unchanged; they are as wide as if an anchor could be held in part."""
    if not anchors:
        return NO_ALTERNATIVES
    budget = sum(float(anchor.weight[anchor.chosen]) for anchor in anchors)
    capacity = np.array([anchor.weight.max() for anchor in anchors])
    inferred = np.sum([anchor.term_values[anchor.chosen] for anchor in anchors], axis=0)
    densities = [_densities(anchor) for anchor in anchors]
    most = np.array([_fractional_knapsack(capacity, column, budget) for column in np.array([d.max(0) for d in densities]).T])
    least = np.array([-_fractional_knapsack(capacity, column, budget) for column in np.array([-d.min(0) for d in densities]).T])
    return TermBounds(np.maximum(inferred - least, 0), np.maximum(most - inferred, 0))


def _densities(anchor: Alternatives) -> Floats:
    """Returns what each box (O', T) adds to the terms for each unit of soft target; zeros (1, T) where no box may hold the anchor."""
    held = anchor.weight > 0
    densities: Floats = anchor.term_values[held] / anchor.weight[held, None] if held.any() else np.zeros_like(anchor.term_values[:1])
    return densities


def _fractional_knapsack(capacity: Floats, density: Floats, budget: float) -> float:
    """Returns the largest sum of density times soft target over anchors (n,), for soft targets that add up to ``budget``."""
    order = np.argsort(-density, kind="stable")
    available = capacity[order]
    given = np.clip(budget - (available.cumsum() - available), 0, available)
    return float((given * density[order]).sum())
