"""Older definitions: what the switches of a LossSpec do, and which release threw which."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import pytest
import torch

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.contract.run import run_assign, run_loss
from oracle.definition.criterion import ExactCriterion
from twinloss import DetectionLoss, LossSpec
from twinloss.release_definitions import DEFINITIONS, switches

DOUBLE = Setting("float64")
SMALL = (Box(0, 0, 20.0, 20.0, 5.0, 5.0), Box(0, 1, 42.0, 40.0, 12.0, 12.0), Box(0, 2, 30.0, 50.0, 40.0, 20.0))
HOWS = [dict(how) for _, how in DEFINITIONS]


def case(**how: Any) -> Case:
    return Case(LossSpec(num_classes=3, **how), (64, 64), 1, SMALL, Prediction("early", 3))


@pytest.mark.parametrize("reg_max", [16, 1])
@pytest.mark.parametrize("how", HOWS, ids=[first for first, _ in DEFINITIONS])
def test_the_twin_and_the_exact_criterion_agree_on_every_definition(how: dict[str, Any], reg_max: int) -> None:
    told = case(reg_max=reg_max, **how)
    twin, exact = DetectionLoss(told.spec), ExactCriterion(told.spec)
    ours, truth = run_loss(twin, build(told, DOUBLE), DOUBLE), run_loss(exact, build(told, DOUBLE), DOUBLE)
    for found, expected in (
        (ours.loss, truth.loss),
        (ours.gradients["boxes"], truth.gradients["boxes"]),
        (ours.gradients["scores"], truth.gradients["scores"]),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_each_definition_differs_from_the_next() -> None:
    told = [dataclasses.replace(case(reg_max=1, **how), prediction=Prediction("near", 3, 0.1)) for how in HOWS]
    losses = [run_loss(DetectionLoss(one.spec), build(one, DOUBLE), DOUBLE).loss for one in told]
    for older, newer in pairwise(losses):
        assert not torch.allclose(older, newer, rtol=1e-3)


def test_lengthening_decides_which_small_boxes_hold_anchors() -> None:
    held = {}
    for lengthen in ("never", "first", "second"):
        told = dataclasses.replace(case(lengthen=lengthen), prediction=Prediction("near", 3, 0.1))
        assigned = run_assign(DetectionLoss(told.spec), build(told, DOUBLE), DOUBLE)
        held[lengthen] = [int((assigned.box == row).sum()) for row in range(2)]
    # A box of 5 px with its centre on an anchor's holds that one; lengthened to 16 px it holds its neighbours.
    assert held["never"][0] == 1
    assert held["first"][0] > 1
    assert held["second"][0] == held["first"][0]
    # One of 12 px is short for the second level's stride alone.
    assert held["first"][1] == held["never"][1] < held["second"][1]


def test_a_head_of_distances_had_no_third_term() -> None:
    told = case(reg_max=1, **switches("8.3.253"))
    outcome = run_loss(DetectionLoss(told.spec), build(told, DOUBLE), DOUBLE)
    assert outcome.items["l1_loss"] == 0
    assert outcome.items["box_loss"] > 0


def test_sums_of_weights_are_what_they_say() -> None:
    # With a single anchor its own weight is the sum.
    box = (Box(0, 0, 20.0, 20.0, 5.0, 5.0),)
    specs = [LossSpec(num_classes=3, lengthen="never", anchor_weights=weights) for weights in ("own", "sum")]
    losses = []
    for spec in specs:
        told = Case(spec, (64, 64), 1, box, Prediction("near", 3, 0.1))
        losses.append(run_loss(DetectionLoss(spec), build(told, DOUBLE), DOUBLE).loss)
    torch.testing.assert_close(losses[0], losses[1])
    many = [run_loss(DetectionLoss(spec), build(case(), DOUBLE), DOUBLE).loss for spec in specs]
    assert many[1][0] > 2 * many[0][0]
    assert many[1][1] == many[0][1]


def test_for_release_takes_numbers_and_lets_them_win() -> None:
    spec = LossSpec.for_release("8.3.253", num_classes=7, reg_max=8)
    assert (spec.num_classes, spec.reg_max, spec.lengthen, spec.distance_term) == (7, 8, "never", False)
    assert LossSpec.for_release("8.3.253", num_classes=7, lengthen="first").lengthen == "first"
    assert LossSpec.for_release("8.4.190", num_classes=7) == LossSpec(num_classes=7)
    assert LossSpec.for_release("9.0.0", num_classes=7).newest
    assert not spec.newest


@pytest.mark.parametrize(
    ("release", "numbers", "said"),
    [
        ("8.0.99", {}, "older than 8.0.100"),
        ("8.3", {}, "not three numbers"),
        ("8.3.253", {"topk2": 1}, "cannot be told topk2"),
        ("8.3.253", {"class_weights": (1.0, 2.0, 3.0)}, "cannot be told class_weights"),
        ("8.1.0", {"topk": 7}, "cannot be told topk"),
    ],
)
def test_for_release_says_what_a_release_cannot_do(release: str, numbers: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LossSpec.for_release(release, num_classes=3, **numbers)


@pytest.mark.parametrize(("field", "value"), [("lengthen", "third"), ("anchor_weights", "mean")])
def test_unknown_switches_are_refused_by_name(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"LossSpec.{field} is '{value}'"):
        LossSpec(num_classes=3, **{field: value})  # type: ignore[arg-type]
