"""Guesses the rule by which a wrong assignment was made, for the reader of a finding; the verdict does not depend on it.

A rule is named only when it gives the contender's answer at every anchor of every image that rounding leaves decided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from oracle.definition.assignment_trace import UNASSIGNED
from oracle.tolerance.allowed_assignments import AllowedAssignments
from oracle.tolerance.intervals import Floats
from oracle.tolerance.margins import Ints, Pairs


class _Rule(NamedTuple):
    """A rule of assignment.

    Attributes:
        topk: number of candidates that a box picks.
        pickers_alone: whether a contested anchor goes to one of the boxes that picked it, or of all whose candidate it is.
        rank: (P,) the number of which the winner has the most.
    """

    topk: int
    pickers_alone: bool
    rank: Floats


def assignment_hint(allowed: AllowedAssignments, truth: Ints, answer: Ints, forbidden: Ints, topk: int) -> str:
    """Returns the rule that gives an assignment, as text; empty where none of the rules does, or several do.

    Args:
        allowed: the allowed assignments.
        truth, answer: (B·A,) box of each anchor by the definition and by the contender.
        forbidden: anchors whose box by the contender is not allowed.
        topk: K.
    """
    if "second cut" in allowed.decision_counts or not len(allowed.margins.pairs):
        return ""
    decided = np.ones(len(answer), dtype=bool)
    decided[truth != answer] = False
    decided[forbidden] = True
    pairs = _candidates(allowed.margins.pairs)
    place = _places(pairs)
    named = [
        text
        for text, rule in _rules(pairs, answer, place, topk)
        if (_holders(pairs, place, rule, len(answer))[decided] == answer[decided]).all()
    ]
    return named[0] if len(named) == 1 else ""


def _rules(pairs: Pairs, answer: Ints, place: Ints, topk: int) -> Iterator[tuple[str, _Rule]]:
    alone = np.bincount(pairs.cell, minlength=len(answer))[pairs.cell] == 1
    kept = place[alone & (answer[pairs.cell] == pairs.box) & (pairs.metric > 0)]
    if kept.size and kept.max() != topk:
        yield (f"K = {kept.max()} instead of {topk} [5.4]", _Rule(int(kept.max()), pickers_alone=False, rank=pairs.overlap))
    earlier = -pairs.box.astype(np.float64)
    yield (
        "conflicts settled among the boxes that picked the anchor, not among all of which it is a candidate [5.5]",
        _Rule(topk, pickers_alone=True, rank=pairs.overlap),
    )
    yield "conflicts settled by the metric instead of the overlap [5.5]", _Rule(topk, pickers_alone=True, rank=pairs.metric)
    yield "conflicts given to the first box that picked the anchor [5.5]", _Rule(topk, pickers_alone=True, rank=earlier)
    yield "conflicts given to the last box that picked the anchor [5.5]", _Rule(topk, pickers_alone=True, rank=-earlier)


def _candidates(pairs: Pairs) -> Pairs:
    """Returns the pairs inside their boxes; the others are pairs that rounding could bring inside."""
    inside = pairs.border > 0
    return dataclasses.replace(pairs, **{field.name: getattr(pairs, field.name)[inside] for field in dataclasses.fields(pairs)})


def _places(pairs: Pairs) -> Ints:
    """Returns the place (P,) of each pair in its box's order by metric, from 1."""
    order = np.lexsort((-pairs.metric, pairs.box))
    box = pairs.box[order]
    start = np.flatnonzero(np.r_[True, box[1:] != box[:-1]])
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - np.repeat(start, np.diff(np.r_[start, len(order)])) + 1
    return place


def _holders(pairs: Pairs, place: Ints, rule: _Rule, cells: int) -> Ints:
    """Returns the box (cells,) that holds each anchor by a rule, or ``UNASSIGNED``."""
    picked = (place <= rule.topk) & (pairs.metric > 0)
    pickers = np.bincount(pairs.cell[picked], minlength=cells)
    contested = pickers[pairs.cell] > 1
    eligible = picked & ((pickers[pairs.cell] == 1) | rule.pickers_alone) | contested & ~np.bool_(rule.pickers_alone)
    order = np.flatnonzero(eligible)
    order = order[np.lexsort((-pairs.box[order], rule.rank[order]))]  # the last that is written wins: the first box of equals
    holder = np.full(cells, UNASSIGNED)
    holder[pairs.cell[order]] = pairs.box[order]
    return holder
