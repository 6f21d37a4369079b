"""Every assignment that some rounding leads to is allowed, and few others: programs are simulated within the margins."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import pytest

from oracle.cases.case import Box, Case, Prediction
from oracle.definition.assignment_trace import UNASSIGNED
from oracle.judge.truth import DefinitionAnswers
from oracle.tolerance.allowed_assignments import AllowedAssignments, TieRules, allowed_assignments
from oracle.tolerance.intervals import Floats
from oracle.tolerance.margins import Bools, Boxes, Ints, Margins, Pairs
from oracle.tolerance.precision import precision_of
from properties.tests.oracle.judge.helpers import FLOAT64
from twinloss import LossSpec

PROGRAMS = 150


def crowd(seed: int, topk: int, topk2: int | None) -> Case:
    """Boxes on top of each other, two of them identical, in a small image."""
    rng = np.random.default_rng(seed)
    boxes = [Box(0, int(rng.integers(2)), *map(float, rng.uniform(8, 40, 2)), *map(float, rng.uniform(8, 40, 2))) for _ in range(5)]
    boxes.append(dataclasses.replace(boxes[2], label=int(rng.integers(2))))
    spec = LossSpec(num_classes=2, strides=(8,), topk=topk, topk2=topk2)
    return Case(spec, (48, 48), 1, tuple(boxes), Prediction("random", seed))


def widened(margins: Margins, share: float) -> Margins:
    """Returns the margins of an imprecise program: overlaps and metrics are off by a share of themselves, borders by a tenth of a pixel."""
    pairs = margins.pairs
    metric = np.where(pairs.metric < np.quantile(pairs.metric, 0.1), 0.0, 1 - share) * pairs.metric
    return dataclasses.replace(
        margins,
        pairs=dataclasses.replace(
            pairs,
            border_tolerance=np.full(len(pairs), 0.1),
            inside=pairs.border > 0.1,
            overlap_low=pairs.overlap * (1 - share),
            overlap_high=pairs.overlap * (1 + share),
            metric_low=metric,
            metric_high=pairs.metric * (1 + share),
        ),
    )


def drawn_program(margins: Margins, rng: np.random.Generator) -> tuple[Floats, Floats, Bools]:
    """Draws overlaps, metrics and candidates (P,) in the intervals, often at an end; equal for boxes with equal corners."""
    boxes, pairs = margins.boxes, margins.pairs
    shape = (len(boxes.row), margins.images * margins.anchors)

    def one(group: Ints) -> Floats:
        """Draws a number in [0, 1] for each pair, the same for boxes of one group."""
        values: Floats = rng.choice([0.0, 1.0, 0.5, rng.random()], size=shape)[group[pairs.box], pairs.cell]
        return values

    alike = boxes.first_twin
    same = np.array([min(np.flatnonzero((alike == alike[g]) & (boxes.label == boxes.label[g]))) for g in range(len(alike))])
    overlap = pairs.overlap_low + one(alike) * (pairs.overlap_high - pairs.overlap_low)
    metric = pairs.metric_low + one(same) * (pairs.metric_high - pairs.metric_low)
    return overlap, metric, pairs.inside | (one(alike) > 0.5)


def answer_of(margins: Margins, spec: LossSpec, rules: TieRules, rng: np.random.Generator) -> Ints:
    """Returns the box of each anchor (B·A,) by spec sections 5.4 to 5.7, in a program drawn within the margins."""
    pairs, groups = margins.pairs, len(margins.boxes.row)
    cells = margins.images * margins.anchors
    o, m, inside = drawn_program(margins, rng)
    overlap, metric, candidate = np.zeros((groups, cells)), np.zeros((groups, cells)), np.zeros((groups, cells), dtype=bool)
    overlap[pairs.box, pairs.cell], metric[pairs.box, pairs.cell], candidate[pairs.box, pairs.cell] = o * inside, m * inside, inside
    picked = np.zeros_like(candidate)
    for row, one in zip(metric, picked, strict=True):
        order = np.lexsort((rng.random(cells), -row))[: spec.topk]
        one[order[(row[order] > 0) | (rules.ties == "reference")]] = True
    picked &= candidate
    rivals = overlap if rules.conflicts == "overlap" else np.where(picked, overlap, -1.0)
    holder: Ints = np.where(picked.sum(0) > 1, rivals.argmax(0), picked.argmax(0)).astype(np.int64)
    holder[~picked.any(0)] = UNASSIGNED
    if spec.topk2 is not None:
        for g in range(groups):
            held = np.flatnonzero(holder == g)
            holder[held[np.argsort(-metric[g, held])[spec.topk2 :]]] = UNASSIGNED
    lost = (holder != UNASSIGNED) & (metric[np.maximum(holder, 0), np.arange(cells)] == 0)
    holder[lost] = UNASSIGNED
    return holder


def permits(allowed: AllowedAssignments, holder: Ints) -> Bools:
    """Returns whether each anchor's box (B·A,) is allowed."""
    pair = allowed.margins.lookup(np.arange(len(holder)), holder)
    return np.where(holder == UNASSIGNED, allowed.may_be_unassigned, (pair >= 0) & allowed.pair[np.maximum(pair, 0)])


@pytest.mark.parametrize("conflicts", ["overlap", "pickers"])
@pytest.mark.parametrize("ties", ["stable", "reference"])
@pytest.mark.parametrize("topk2", [None, 2])
@pytest.mark.parametrize("share", [1e-9, 0.03, 0.3])
def test_what_any_rounding_leads_to_is_allowed(
    share: float, topk2: int | None, ties: Literal["stable", "reference"], conflicts: Literal["overlap", "pickers"]
) -> None:
    options, reached, sure = 0, 0, 0
    rules = TieRules(ties, conflicts)
    for seed in range(4):
        case = crowd(seed, topk=(1, 4, 12)[seed % 3], topk2=topk2)
        margins = widened(DefinitionAnswers(case, FLOAT64).margins(precision_of(FLOAT64, "float32")), share)
        allowed = allowed_assignments(margins, case.spec, rules)
        rng = np.random.default_rng(seed)
        seen: set[tuple[int, int]] = set()
        for _ in range(PROGRAMS):
            holder = answer_of(margins, case.spec, rules, rng)
            fine = permits(allowed, holder)
            assert fine.all(), (seed, np.flatnonzero(~fine), holder[~fine])
            seen |= set(enumerate(holder.tolist()))
        pairs = margins.pairs
        offered = {(int(c), int(g)) for c, g in zip(pairs.cell[allowed.pair], pairs.box[allowed.pair], strict=True)}
        offered |= {(int(c), UNASSIGNED) for c in np.flatnonzero(allowed.may_be_unassigned)}
        options, reached = options + len(offered), reached + len(seen & offered)
        sure += len(offered) == case.num_anchors
    # Nearly all of what is allowed is what some rounding leads to; what is not needs several roundings at once, each at its end.
    assert reached > (0.97 if share < 0.1 else 0.8) * options
    assert sure > 0 or share > 1e-3


def worked_example() -> Margins:
    """Three boxes and five anchors, as in the docstring of the module; overlaps equal metrics, off by 1e-6."""
    metric = {(0, 0): 0.9, (0, 1): 0.5, (0, 2): 0.5, (1, 2): 0.8, (1, 3): 0.7, (2, 3): 0.6, (2, 4): 0.4}
    box, cell = np.array(list(metric)).T
    value, number = np.array(list(metric.values())), np.arange(3)
    interval, yes, no = (value, value - 1e-6, value + 1e-6), np.ones(3, dtype=bool), np.zeros(3, dtype=bool)
    boxes = Boxes(number, 0 * number, number, np.zeros((3, 4)), np.zeros((3, 4)), number, shadowed=no, valid=yes, validity_open=no)
    return Margins(boxes, Pairs(box, cell, np.ones(7), np.zeros(7), np.ones(7, dtype=bool), *interval, *interval), images=1, anchors=5)


def test_the_worked_example() -> None:
    margins = worked_example()
    allowed = allowed_assignments(margins, LossSpec(num_classes=3, topk=2), TieRules())
    pairs = [(int(box), int(anchor)) for box, anchor in zip(margins.pairs.box, margins.pairs.cell, strict=True)]

    def chosen(mask: Bools) -> list[tuple[int, int]]:
        return [pair for pair, here in zip(pairs, mask, strict=True) if here]

    assert chosen(allowed.picked) == [(0, 0), (1, 2), (1, 3), (2, 3), (2, 4)]
    assert chosen(allowed.possible) == pairs
    assert chosen(allowed.pair) == [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4)]
    assert np.flatnonzero(allowed.may_be_unassigned).tolist() == [1]
    counted = {kind: (count.decisions, count.open) for kind, count in allowed.decision_counts.items()}
    assert counted == {"border": (7, 0), "kth place": (3, 1), "conflict": (2, 0), "zero pick": (0, 0)}
