"""The judge's decisions, judged: wrong answers that it must refuse, open ones that it must excuse, right ones that it must never doubt."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from oracle.cases.case import Box, Case, Prediction
from oracle.comparison.compare import compare
from oracle.contract.contender import Contender, Metrics
from oracle.contract.verdict import Verdict
from oracle.judge.truth import DefinitionAnswers
from oracle.tolerance.allowed_assignments import TieRules
from oracle.tolerance.precision import precision_of
from properties.tests.oracle.judge.helpers import (
    FLOAT32,
    FLOAT64,
    ONE_LEVEL,
    REFERENCE,
    TIED_TWIN,
    TWIN,
    changed,
    contested_case,
    drawn,
    edited,
    handed,
    judged,
    judgement_of,
    moved,
    ordinary,
    tied_case,
    verdict_of,
)
from twinloss import Assignment, DetectionLoss, LossSpec


def test_a_tie_for_the_last_place_may_go_either_way_and_the_rest_may_not() -> None:
    case = tied_case()
    held = DefinitionAnswers(case, FLOAT32).decided(precision_of(FLOAT32, "float32"), TieRules()).assignment
    assert held.anchor.tolist() == [0, 1]
    other = judged(case, edited(moved(0, 2)))
    assert verdict_of(other, "assign", "holders") is Verdict.AMBIGUOUS
    assert verdict_of(other, "assign", "kth place") is Verdict.AMBIGUOUS
    assert verdict_of(other, "loss", "loss") is Verdict.AMBIGUOUS
    assert verdict_of(other, "loss_given", "loss") is Verdict.AGREE
    assert other.verdict is Verdict.AMBIGUOUS
    assert judged(case, edited(moved(1, 2))).verdict is Verdict.DIFFER


def test_a_last_place_that_is_decided_excuses_no_other_answer() -> None:
    comparison = judged(tied_case(gap=2e-4), edited(moved(0, 2)))
    assert verdict_of(comparison, "assign", "holders") is Verdict.DIFFER
    finding = comparison.results[0].findings[0]
    assert finding.where["anchor"] in (0, 2)
    assert "place 3 of its box's" in finding.candidate
    assert finding.exact == "held by no box"
    assert 1 < judgement_of(comparison, "assign", "kth place").margin < 50
    assert tied_case(gap=2e-4).digest in comparison.report()


def test_a_tie_does_not_excuse_one_anchor_more_or_less() -> None:
    case = tied_case()
    for kept in (1, 3):
        comparison = judged(case, changed(topk=kept))
        assert verdict_of(comparison, "assign", "holders") is Verdict.DIFFER
        finding = judgement_of(comparison, "assign", "holders").finding
        assert finding is not None
        assert finding.what == f"box 0 holds {kept} uncontested anchors; 2 to 2 are possible"


def test_the_definitions_own_answer_counts_its_decisions_once() -> None:
    judgements = judged(tied_case(), TWIN).results[0].judgements
    counted = {j.quantity: (j.decisions, j.open_decisions) for j in judgements if j.stage == "assign" and j.quantity != "holders"}
    assert counted["kth place"] == (1, 1)
    assert counted["conflict"] == (0, 0)
    assert sum(j.ambiguous_decisions for j in judgements) == 0


def test_a_contested_anchor_goes_to_the_larger_overlap() -> None:
    comparison = judged(contested_case(Box(0, 1, 12.0, 5.0, 24.0, 10.0)), edited(handed(1)))
    assert verdict_of(comparison, "assign", "holders") is Verdict.DIFFER


def test_identical_boxes_are_never_an_open_question() -> None:
    case = contested_case(Box(0, 1, 12.0, 4.0, 24.0, 8.0))
    definition = DefinitionAnswers(case, FLOAT32)
    allowed = definition.allowed(precision_of(FLOAT32, "float32"), TieRules())
    assert allowed.decision_counts["conflict"].decisions == 2
    assert allowed.decision_counts["conflict"].open == 0
    assert judged(case, TWIN).verdict is Verdict.AGREE
    assert verdict_of(judged(case, edited(handed(1))), "assign", "holders") is Verdict.DIFFER


def test_overlaps_within_rounding_may_go_to_either_box() -> None:
    # Mirror images of each other about the prediction's centre line, in coordinates that float32 rounds.
    boxes = [Box(0, 0, 12.0, 16.0 - 0.3, 24.0, 8.0), Box(0, 1, 12.0, 16.0 + 0.3, 24.0, 8.0)]
    spec = dataclasses.replace(ONE_LEVEL, strides=(32,), topk=1)
    case = drawn(boxes, {0: (0.125, 0.125, 0.625, 0.125)}, {(0, 0): 2.0, (1, 0): 2.0}, spec)
    for box in (0, 1):
        comparison = judged(case, edited(handed(box)))
        assert verdict_of(comparison, "assign", "holders") in {Verdict.AGREE, Verdict.AMBIGUOUS}
    assert DefinitionAnswers(case, FLOAT32).allowed(precision_of(FLOAT32, "float32"), TieRules()).decision_counts["conflict"].open == 1


class Narrow(DetectionLoss):
    """The twin, but for one candidate: the pair of the largest overlap."""

    def metrics(self, preds: Any, batch: Any) -> Any:
        found = super().metrics(preds, batch)
        kept = torch.arange(len(found.row)) != found.overlap.argmax()
        return Metrics(found.row[kept], found.anchor[kept], found.overlap[kept], found.metric[kept])


def test_a_pair_inside_for_certain_must_be_a_candidate() -> None:
    comparison = judged(ordinary(), Contender("narrow", "", Narrow, arithmetic="float32"))
    assert verdict_of(comparison, "candidates", "pairs") is Verdict.DIFFER
    assert "1 candidate pairs are missing" in comparison.report()


def test_a_border_on_a_centre_is_decided_where_no_coordinate_is_rounded() -> None:
    # Sides at 4 and 36: the centres of four anchors lie on them, and strictly inside excludes them in every program.
    case = Case(ONE_LEVEL, (64, 64), 1, (Box(0, 0, 20.0, 20.0, 32.0, 32.0),), Prediction("random"))
    pairs = DefinitionAnswers(case, FLOAT32).margins(precision_of(FLOAT32, "float32")).pairs
    assert len(pairs) == 9
    assert pairs.inside.all()
    wide = changed(assign_eps=-1e-3)
    assert verdict_of(judged(case, wide), "candidates", "pairs") is Verdict.DIFFER
    # The same sides in an image whose size makes every coordinate inexact: either answer is one that a correct program may give.
    inexact = dataclasses.replace(case, image_size=(56, 88))
    pairs = DefinitionAnswers(inexact, FLOAT32).margins(precision_of(FLOAT32, "float32")).pairs
    assert not pairs.inside.all()
    assert verdict_of(judged(inexact, changed(assign_eps=-1e-5)), "candidates", "pairs") is not Verdict.DIFFER


def test_in_float64_the_assigners_epsilon_decides_a_border() -> None:
    box = Box(0, 0, 20.0, 20.0, 32.0, 32.0)
    case = Case(ONE_LEVEL, (64, 64), 1, (box,), Prediction("random"))
    assert verdict_of(judged(case, changed(assign_eps=-1e-9), FLOAT64), "candidates", "pairs") is Verdict.DIFFER


def test_a_zero_pick_is_open_with_the_references_rule_for_ties_alone() -> None:
    # Boxes crowded into the first corner, with fewer than K anchors of positive metric: their other picks fall among the zeros there.
    crowd = [Box(0, k % 2, 6.0 + 3 * k, 5.0 + 2 * k, 9.0 + 4 * k, 8.0 + 5 * k) for k in range(6)]
    opened = 0
    for seed in range(8):
        case = Case(LossSpec(num_classes=2, strides=(8, 16), topk=10), (64, 64), 1, tuple(crowd), Prediction("random", seed=seed))
        definition = DefinitionAnswers(case, FLOAT64)
        arithmetic = precision_of(FLOAT64, "float32")
        decision_counts = definition.allowed(arithmetic, TieRules(ties="reference")).decision_counts
        opened += decision_counts["zero pick"].open > 0
        assert definition.allowed(arithmetic, TieRules(ties="stable")).decision_counts["zero pick"].open == 0
        comparison = compare(case, FLOAT64, [REFERENCE, TIED_TWIN, TWIN], REFERENCE)
        assert comparison.verdict is Verdict.AGREE, comparison.report()
    assert opened >= 2


def test_the_second_cut_keeps_a_boxs_best_anchors() -> None:
    case = ordinary(kind="late", topk2=3)
    assert judged(case, TWIN).verdict is Verdict.AGREE
    assert verdict_of(judged(case, changed(topk2=4)), "assign", "holders") is Verdict.DIFFER
    assert verdict_of(judged(case, changed(topk2=2)), "assign", "holders") is Verdict.DIFFER


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda held: dataclasses.replace(held, anchor=held.anchor + 10_000), "names anchor"),
        (lambda held: dataclasses.replace(held, weight=-held.weight), "weight at image"),
        (lambda held: dataclasses.replace(held, weight=held.weight * math.nan), "weight at image"),
        (lambda held: Assignment(*(torch.cat([part, part]) for part in dataclasses.astuple(held))), "twice"),
    ],
    ids=["anchor out of range", "negative weight", "weight no number", "held twice"],
)
def test_an_answer_that_is_no_assignment_is_named(edit: Callable[[Assignment], Assignment], said: str) -> None:
    class Broken(DetectionLoss):
        def assign(self, preds: Any, batch: Any) -> Assignment:
            return edit(super().assign(preds, batch))

    comparison = judged(ordinary(), Contender("broken", "", Broken, arithmetic="float32"))
    assert comparison.verdict is Verdict.DIFFER
    assert said in comparison.report()


def test_a_box_of_another_image_is_named() -> None:
    comparison = judged(ordinary(), edited(lambda held: dataclasses.replace(held, box=7 - held.box)))
    assert verdict_of(comparison, "assign", "holders") is Verdict.DIFFER
    assert "no valid box of this image" in comparison.report()


def test_wrong_weights_differ_although_the_holders_agree() -> None:
    comparison = judged(ordinary(), edited(lambda held: dataclasses.replace(held, weight=held.weight * (1 + 3e-4))))
    assert verdict_of(comparison, "assign", "holders") is Verdict.AGREE
    assert verdict_of(comparison, "assign", "weights") is Verdict.DIFFER
