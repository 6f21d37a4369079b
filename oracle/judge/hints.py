"""What rule an assignment was made by, where it is not the definition's: a guess for the reader of a finding, never a part of the verdict.

A rule is named only when the whole assignment, every anchor of every image, is what the rule gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from oracle.tolerance.allowed_assignments import NOBODY, Allowed
from oracle.tolerance.margins import Floats, Ints, Pairs


class _Rule(NamedTuple):
    """How many candidates a box keeps, among whom a contested anchor is settled, and what the winner has most of (P,)."""

    topk: int
    pickers_alone: bool
    rank: Floats


def assignment_hint(allowed: Allowed, truth: Ints, answer: Ints, forbidden: Ints, topk: int) -> str:
    """The rule that gives an assignment, or an empty text where none of those that are tried does, or several do.

    Args:
        allowed: margins, pairs and what may be answered.
        truth, answer: (B·A,) holders by the definition and by the contender.
        forbidden: anchors that the contender may not have answered so.
        topk: K.
    """
    if "second cut" in allowed.tallies or not len(allowed.margins.pairs):
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
        yield (
            f"K = {kept.max()} instead of {topk} [5.4]",
            _Rule(int(kept.max()), pickers_alone=False, rank=pairs.overlap),
        )
    earlier = -pairs.box.astype(np.float64)
    yield (
        "conflicts settled among the boxes that picked the anchor, not among all of which it is a candidate [5.5]",
        _Rule(topk, pickers_alone=True, rank=pairs.overlap),
    )
    yield "conflicts settled by the metric instead of the overlap [5.5]", _Rule(topk, pickers_alone=True, rank=pairs.metric)
    yield "conflicts given to the first box that picked the anchor [5.5]", _Rule(topk, pickers_alone=True, rank=earlier)
    yield "conflicts given to the last box that picked the anchor [5.5]", _Rule(topk, pickers_alone=True, rank=-earlier)


def _candidates(pairs: Pairs) -> Pairs:
    """Those that lie inside their boxes: others are near enough to a border to be looked at."""
    inside = pairs.border > 0
    return dataclasses.replace(pairs, **{field.name: getattr(pairs, field.name)[inside] for field in dataclasses.fields(pairs)})


def _places(pairs: Pairs) -> Ints:
    """Place (P,) of each pair among its box's, from 1, by the metric."""
    order = np.lexsort((-pairs.metric, pairs.box))
    box = pairs.box[order]
    start = np.flatnonzero(np.r_[True, box[1:] != box[:-1]])
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - np.repeat(start, np.diff(np.r_[start, len(order)])) + 1
    return place


def _holders(pairs: Pairs, place: Ints, rule: _Rule, cells: int) -> Ints:
    """Box (cells,) that holds each anchor by a rule, or ``NOBODY``."""
    picked = (place <= rule.topk) & (pairs.metric > 0)
    pickers = np.bincount(pairs.cell[picked], minlength=cells)
    contested = pickers[pairs.cell] > 1
    eligible = picked & ((pickers[pairs.cell] == 1) | rule.pickers_alone) | contested & ~np.bool_(rule.pickers_alone)
    order = np.flatnonzero(eligible)
    order = order[np.lexsort((-pairs.box[order], rule.rank[order]))]  # the last that is written wins: the first box of equals
    holder = np.full(cells, NOBODY)
    holder[pairs.cell[order]] = pairs.box[order]
    return holder
