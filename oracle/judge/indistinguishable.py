"""How far the loss may be from what one reading of an assignment gives, where no gradient tells which anchors are held.

A prediction that is right to the last bit has no gradient: whichever of several such anchors a box holds, the gradients are the same, and
so is S. The terms are not, since a distribution that is right still has its entropy. What they may be is bounded here, given S.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oracle.tolerance.margins import Floats

TERMS = 3


class Choice(NamedTuple):
    """An anchor that may be held in several ways that its gradients do not tell apart: O of them, one of which may be by nobody.

    Attributes:
        weight: (O,) soft targets; 0 for nobody.
        worth: (O, 3) what each adds to the terms.
        taken: index of the one that was read.
    """

    weight: Floats
    worth: Floats
    taken: int


class Room(NamedTuple):
    """By how much the terms (3,) may be less, and more, than those of what was read."""

    less: Floats
    more: Floats


NONE = Room(np.zeros(TERMS), np.zeros(TERMS))


def room(choices: Sequence[Choice]) -> Room:
    """Bounds over all ways to choose that leave S as it is; they are as wide as if an anchor could be held in part."""
    if not choices:
        return NONE
    budget = sum(float(choice.weight[choice.taken]) for choice in choices)
    capacity = np.array([choice.weight.max() for choice in choices])
    read = np.sum([choice.worth[choice.taken] for choice in choices], axis=0)
    dense = [_densities(choice) for choice in choices]
    most = np.array([_filled(capacity, np.array([d.max(0)[k] for d in dense]), budget) for k in range(TERMS)])
    least = np.array([-_filled(capacity, np.array([-d.min(0)[k] for d in dense]), budget) for k in range(TERMS)])
    return Room(np.maximum(read - least, 0), np.maximum(most - read, 0))


def _densities(choice: Choice) -> Floats:
    """What each box (O', 3) adds to the terms for each unit of soft target."""
    held = choice.weight > 0
    densities: Floats = choice.worth[held] / choice.weight[held, None] if held.any() else np.zeros((1, TERMS))
    return densities


def _filled(capacity: Floats, density: Floats, budget: float) -> float:
    """Most that can be added up with so much soft target to give away: the densest anchors first."""
    order = np.argsort(-density, kind="stable")
    room_there = capacity[order]
    given = np.clip(budget - (room_there.cumsum() - room_there), 0, room_there)
    return float((given * density[order]).sum())
