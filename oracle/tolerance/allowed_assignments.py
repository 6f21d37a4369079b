"""The assignments of correct programs: for every anchor the boxes that may hold it, or none (spec sections 5 and 9).

A decision is open only where the intervals of :mod:`~oracle.tolerance.margins` overlap. There are five kinds: *border* (is the anchor a
candidate?), *K-th place* (is it among its box's K?), *conflict* (which box wins it?), *second cut* (does its box keep it?) and *zero pick*
(did a box with fewer than K positive metrics pick a zero here, and thereby make a conflict?). Example: K = 2, metric by box and anchor:

    ========  ======  ======  ======  ======  ======   =======================  ====================
    box       a0      a1      a2      a3      a4       picked (certainly)       possible
    ========  ======  ======  ======  ======  ======   =======================  ====================
    box 0     0.9     0.5     0.5                      a0                       a0, a1, a2: a tie
    box 1                     0.8     0.7              a2, a3                   a2, a3
    box 2                             0.6     0.4      a3, a4                   a3, a4
    allowed   box 0   box 0   box 1   box 1   box 2    conflicts at a2 and a3 go to the largest overlap, here box 1
              or none
    ========  ======  ======  ======  ======  ======   =======================  ====================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from oracle.tolerance.intervals import Floats, nth_largest
from oracle.tolerance.margins import Bools, Boxes, Margins, Pairs
from twinloss import LossSpec

KINDS = ("border", "kth place", "conflict", "second cut", "zero pick")


@dataclass(frozen=True)
class TieRules:
    """A contender's rules for what the definition leaves open.

    Attributes:
        ties: ``"stable"`` picks positive metrics alone; ``"reference"`` may pick zeros, which opens zero picks.
        conflicts: whether a contested anchor goes to the largest overlap of all candidate boxes or of those that picked it.
        smallest_weight: soft targets below this may underflow.
        weightless: whether reported anchors of weight 0 count, because a term counts every held anchor.
    """

    ties: Literal["stable", "reference"] = "stable"
    conflicts: Literal["overlap", "pickers"] = "overlap"
    smallest_weight: float = 0.0
    weightless: bool = False

    @property
    def holds_zeros(self) -> bool:
        """Whether anchors of metric 0 that a box picks are part of the assignment."""
        return self.weightless and self.ties == "reference"


@dataclass(frozen=True)
class DecisionCount:
    """Number of decisions of one kind in a batch, of those that rounding could tip, and the smallest margin ÷ tolerance."""

    decisions: int
    open: int
    margin: float


@dataclass(frozen=True)
class AllowedAssignments:
    """The assignments that the margins allow.

    Attributes:
        margins: the boxes and pairs, with their intervals.
        picked, possible: (P,) pairs that every correct program, or some, picks before conflicts.
        pair: (P,) pairs that may hold their anchor in the end.
        vanishing: (P,) pairs that may hold their anchor with a weight of 0, which no contender reports.
        may_be_unassigned: (B·A,) anchors that no box, or a box with weight 0, may hold.
        may_go_to_first: (B·A,) anchors that an image's first box may hold although it is no candidate, since all overlaps may be 0.
        decision_counts: the count of each kind.
        opened_border, opened_cut, opened_zero: (P,) pairs that are open because of a border, the second cut, a zero pick.
        weightless: whether reported anchors of weight 0 count.
    """

    margins: Margins
    picked: Bools
    possible: Bools
    pair: Bools
    vanishing: Bools
    may_be_unassigned: Bools
    may_go_to_first: Bools
    decision_counts: dict[str, DecisionCount]
    opened_border: Bools
    opened_cut: Bools
    opened_zero: Bools
    weightless: bool = False

    @property
    def open_to_ties(self) -> bool:
        """Whether the rule for ties can matter: a zero pick, or equal metrics at the last place."""
        return any(self.decision_counts[kind].open for kind in ("zero pick", "kth place", "second cut") if kind in self.decision_counts)

    @property
    def alone(self) -> Bools:
        """Pairs (P,) that may be picked and have no rival at their anchor; a box holds at most K of them, beside those won in conflicts."""
        cell = self.margins.pairs.cell
        rivals = np.bincount(cell[self.possible | self.pair | self.vanishing], minlength=len(self.may_be_unassigned))
        alone: Bools = self.possible & (rivals[cell] == 1)
        return alone


def allowed_assignments(margins: Margins, spec: LossSpec, rules: TieRules) -> AllowedAssignments:
    """Returns the assignments of correct programs for a batch.

    Args:
        margins: the pairs, with their intervals.
        spec: K and the second cut.
        rules: the contender's, for ties and conflicts.
    """
    ranked = margins.ranked if rules.ties == "stable" else None
    boxes, pairs = margins.boxes, ranked or margins.pairs
    cells, groups = margins.images * margins.anchors, len(boxes.row)
    picked, possible = _picks(pairs, groups, spec.topk)
    zero = _zero_picks(pairs, groups, spec.topk, rules)
    joined = possible | zero
    rivals = np.bincount(pairs.cell[joined], minlength=cells)
    sure = np.bincount(pairs.cell[picked], minlength=cells)
    # A single picker keeps the anchor, where no other certainly picks it too.
    alone = joined & (sure[pairs.cell] - picked == 0) & ~boxes.shadowed[pairs.box]
    winner = _winners(boxes, pairs, picked, joined, rules) & (rivals[pairs.cell] > 1)
    without_zero = np.bincount(pairs.cell[possible], minlength=cells)
    by_zero = winner & ~(possible & alone) & (without_zero[pairs.cell] <= 1)
    may = alone | winner
    # Where ranks do not underflow, a weight that does is reported.
    lost = pairs.metric_low == 0 if ranked else _least_weight(pairs, groups, spec) < rules.smallest_weight
    vanishing = may & ((pairs.metric_low == 0) | lost)
    held = may & (pairs.metric_high > 0)
    if rules.holds_zeros:
        by_zero |= may & zero
        vanishing, held = np.zeros_like(vanishing), may
    may_be_unassigned = sure == 0
    may_be_unassigned[pairs.cell[vanishing]] = True
    kept, cut = _second_cut(pairs, held, may_be_unassigned, groups, cells, spec)
    if rules.holds_zeros and spec.second_topk is not None:
        cut |= pairs.metric_low == 0  # The cut picks among all zeros of the row, also of anchors that the box does not hold.
    may_be_unassigned[pairs.cell[held & cut]] = True
    vanishing |= held & cut
    best = np.zeros(cells)
    np.maximum.at(best, pairs.cell[pairs.inside], pairs.overlap_low[pairs.inside])
    may_go_to_first = (rivals > 1) & (best == 0) & rules.holds_zeros
    may_be_unassigned[may_go_to_first] |= spec.second_topk is not None
    final = held & kept
    decision_counts = {
        "border": _border_decisions(pairs),
        "kth place": _kth_decisions(pairs, picked, possible, groups, spec.topk),
        "conflict": _conflict_decisions(boxes, pairs, final, possible, cells, rules),
        "zero pick": DecisionCount(len(np.unique(pairs.cell[by_zero])), len(np.unique(pairs.cell[by_zero])), np.inf),
    }
    if spec.second_topk is not None:
        holders = np.unique(pairs.box[held])
        decision_counts["second cut"] = DecisionCount(len(holders), len(np.unique(pairs.box[held & kept & cut])), np.inf)
    border = np.abs(pairs.border) <= pairs.border_tolerance
    return AllowedAssignments(
        margins, picked, possible, final, vanishing, may_be_unassigned, may_go_to_first, decision_counts,
        opened_border=border | boxes.validity_open[pairs.box], opened_cut=held & cut, opened_zero=by_zero, weightless=rules.weightless,
    )  # fmt: skip


def _picks(pairs: Pairs, groups: int, topk: int) -> tuple[Bools, Bools]:
    """Returns the pairs (P,) that every correct program picks, and those that some does [5.4].

    A pair is not possible where K others are certainly larger, and not certain where K others may be as large.
    """
    sure = pairs.inside
    bar = nth_largest(pairs.metric_low[sure], pairs.box[sure], groups, topk, 0.0)
    danger = nth_largest(pairs.metric_high, pairs.box, groups, topk + 1, -1.0)
    possible = (pairs.metric_high >= bar[pairs.box]) & (pairs.metric_high > 0)
    picked = sure & (pairs.metric_low > danger[pairs.box]) & (pairs.metric_low > 0)
    return picked, possible


def _zero_picks(pairs: Pairs, groups: int, topk: int, rules: TieRules) -> Bools:
    """Returns the pairs (P,) of metric zero that a box with fewer than K positive metrics may pick [9]."""
    if rules.ties == "stable":
        return np.zeros(len(pairs), dtype=bool)
    positive = np.bincount(pairs.box[pairs.inside & (pairs.metric_low > 0)], minlength=groups)
    may: Bools = (pairs.metric_low == 0) & (positive < topk)[pairs.box]
    return may


def _winners(boxes: Boxes, pairs: Pairs, picked: Bools, joined: Bools, rules: TieRules) -> Bools:
    """Returns the pairs (P,) that may win a conflict at their anchor: no certain rival's overlap is certainly larger [5.5]."""
    everyone = np.ones(len(pairs), dtype=bool)
    # Boxes with equal corners have the same candidates, even at an open border.
    rival, twin, entrant = (picked, picked, joined) if rules.conflicts == "pickers" else (pairs.inside, everyone, everyone)
    best = np.full(int(pairs.cell.max(initial=-1)) + 1, -1.0)
    np.maximum.at(best, pairs.cell[rival], pairs.overlap_low[rival])
    return entrant & (pairs.overlap_high >= best[pairs.cell]) & ~_behind_twin(boxes, pairs, twin)


def _behind_twin(boxes: Boxes, pairs: Pairs, rival: Bools) -> Bools:
    """Returns the pairs (P,) with a rival box of the same corners and a lower index, which wins on the equal overlap [9]."""
    span = int(pairs.cell.max(initial=-1)) + 1
    key = boxes.first_twin[pairs.box] * span + pairs.cell
    _, group = np.unique(key, return_inverse=True)
    lowest = np.full(len(pairs), len(boxes.row))
    np.minimum.at(lowest, group[rival], pairs.box[rival])
    return pairs.box > lowest[group]


def _least_weight(pairs: Pairs, groups: int, spec: LossSpec) -> Floats:
    """Returns a lower bound (P,) of the soft target of each pair [5.7]: the box's largest overlap is at least the pair's."""
    largest = np.zeros(groups)
    np.maximum.at(largest, pairs.box, pairs.metric_high)
    return pairs.metric_low * pairs.overlap_low / (largest[pairs.box] + spec.assign_eps)


def _second_cut(pairs: Pairs, held: Bools, may_be_unassigned: Bools, groups: int, cells: int, spec: LossSpec) -> tuple[Bools, Bools]:
    """Returns the pairs (P,) that the second cut may keep, and those that it may drop [5.6]."""
    none = np.zeros(len(pairs), dtype=bool)
    if spec.second_topk is None:
        return ~none, none
    options = np.bincount(pairs.cell[held], minlength=cells) + may_be_unassigned
    sure = held & (options[pairs.cell] == 1)
    bar = nth_largest(pairs.metric_low[sure], pairs.box[sure], groups, spec.second_topk, 0.0)
    danger = nth_largest(pairs.metric_high[held], pairs.box[held], groups, spec.second_topk + 1, -1.0)
    return pairs.metric_high >= bar[pairs.box], pairs.metric_low <= danger[pairs.box]


def _border_decisions(pairs: Pairs) -> DecisionCount:
    """Counts one decision for each pair that can be a candidate."""
    away = np.abs(pairs.border)
    rounded = pairs.border_tolerance > 0
    ratios = away[rounded] / pairs.border_tolerance[rounded]
    return DecisionCount(len(pairs), int((~pairs.inside).sum()), float(ratios.min(initial=np.inf)))


def _kth_decisions(pairs: Pairs, picked: Bools, possible: Bools, groups: int, topk: int) -> DecisionCount:
    """Counts one decision for each box that has a candidate of positive metric; its margin is the gap at the K-th place."""
    open_boxes = np.unique(pairs.box[possible & ~picked])
    at, after = (nth_largest(pairs.metric, pairs.box, groups, n, 0.0) for n in (topk, topk + 1))
    low, high = (
        nth_largest(pairs.metric_low, pairs.box, groups, topk, 0.0),
        nth_largest(pairs.metric_high, pairs.box, groups, topk + 1, 0.0),
    )
    tolerance = (at - low) + (high - after)
    gaps = (at - after)[tolerance > 0] / tolerance[tolerance > 0]
    return DecisionCount(len(np.unique(pairs.box[possible])), len(open_boxes), float(gaps[after[tolerance > 0] > 0].min(initial=np.inf)))


def _conflict_decisions(boxes: Boxes, pairs: Pairs, final: Bools, possible: Bools, cells: int, rules: TieRules) -> DecisionCount:
    """Counts one decision for each anchor that several boxes may pick; its margin is the gap between the two largest overlaps."""
    contested = np.bincount(pairs.cell[possible], minlength=cells) > 1
    options = np.bincount(pairs.cell[final], minlength=cells)
    entrants = contested[pairs.cell] & (boxes.first_twin[pairs.box] == pairs.box)
    if rules.conflicts == "pickers":
        entrants &= possible
    cell, value, off = pairs.cell[entrants], pairs.overlap[entrants], (pairs.overlap_high - pairs.overlap)[entrants]
    order = np.lexsort((-value, cell))
    cell, value, off = cell[order], value[order], off[order]
    same = cell[1:] == cell[:-1]
    # The second of each anchor's rivals in order of overlap.
    second = np.flatnonzero(same & ~np.concatenate([np.zeros(1, dtype=bool), same[:-1]])[: len(same)]) + 1
    gap, tolerance = value[second - 1] - value[second], off[second - 1] + off[second]
    ratios = gap / np.maximum(tolerance, np.finfo(np.float64).tiny)
    return DecisionCount(int(contested.sum()), int((contested & (options > 1)).sum()), float(ratios.min(initial=np.inf)))
