"""Older definitions: what the switches of a LossSpec do, and which release threw which."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import pytest
import torch

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.contract.run import Outcome, run_assign, run_loss
from oracle.definition.tasks import DEFINITIONS as EXACT
from twinloss import DetectionLoss, LossSpec, OrientedSpec, PoseSpec, SegmentationLoss, SegmentationSpec
from twinloss.loss import LOSSES
from twinloss.release_definitions import DEFINITIONS, UNFOLLOWED, Unfollowed, switches, unfollowed

DOUBLE, FLOAT = Setting("float64"), Setting("float32")
SMALL = (Box(0, 0, 20.0, 20.0, 5.0, 5.0), Box(0, 1, 42.0, 40.0, 12.0, 12.0), Box(0, 2, 30.0, 50.0, 40.0, 20.0))
HOWS = [dict(how) for _, how in DEFINITIONS["detect"]]
OF_TASKS = [pytest.param(task, dict(how), id=f"{task} {first}") for task, known in DEFINITIONS.items() for first, how in known]
SPECS: dict[str, LossSpec] = {
    "detect": LossSpec(num_classes=3),
    "segment": SegmentationSpec(num_classes=3),
    "oriented": OrientedSpec(num_classes=3),
    "pose": PoseSpec(num_classes=3, keypoint_shape=(5, 3), generation=2),
}
MASKS = {"prototypes": 4.0, "semantic": 1.0, "mask_height": 32.0, "mask_width": 24.0}


def case(**how: Any) -> Case:
    return Case(LossSpec(num_classes=3, **how), (64, 64), 1, SMALL, Prediction("early", 3))


def answered(criterion: Any, told: Case, setting: Setting = DOUBLE) -> Outcome:
    """What a criterion answers to a batch."""
    return run_loss(criterion, build(told, setting), setting, terms=told.spec.terms)


def of_task(task: str, **how: Any) -> Case:
    """A batch of a task with boxes of all sizes, one of them beyond the left border, and masks on another grid than the prototypes'."""
    boxes = (*SMALL, Box(0, 1, 8.0, 40.0, 30.0, 36.0))
    extras = {"angle": (0.3, -0.5, 1.1, 0.2)} if task == "oriented" else {}
    spec = dataclasses.replace(SPECS[task], **how)
    return Case(spec, (64, 64), 1, boxes, Prediction("early", 3), extras=extras, options=MASKS if task == "segment" else {})


@pytest.mark.parametrize("reg_max", [16, 1])
@pytest.mark.parametrize(("task", "how"), OF_TASKS)
def test_the_twin_and_the_exact_criterion_agree_on_every_definition(task: str, how: dict[str, Any], reg_max: int) -> None:
    told = of_task(task, reg_max=reg_max, **how)
    twin, exact = LOSSES[task](told.spec), EXACT[task](told.spec)
    ours, truth = answered(twin, told), answered(exact, told)
    assert ours.gradients.keys() == truth.gradients.keys()
    torch.testing.assert_close(ours.loss, truth.loss, rtol=1e-9, atol=1e-12)
    for name, found in ours.gradients.items():
        torch.testing.assert_close(found, truth.gradients[name], rtol=1e-9, atol=1e-9 * float(truth.gradients[name].abs().max()))


@pytest.mark.parametrize("task", ["segment", "oriented", "pose"])
def test_each_definition_of_a_task_differs_from_the_next(task: str) -> None:
    """Each of them in the terms, or in a term of the distances for R = 1."""
    answers = [
        [answered(LOSSES[task](told.spec), told).loss for told in (of_task(task, **how), of_task(task, reg_max=1, **how))]
        for _, how in DEFINITIONS[task]
    ]
    for older, newer in pairwise(answers):
        assert any(a.shape != b.shape or not torch.allclose(a, b, rtol=1e-3) for a, b in zip(older, newer, strict=True))


@pytest.mark.parametrize(("task", "how"), OF_TASKS)
def test_the_default_backend_computes_every_definition(task: str, how: dict[str, Any]) -> None:
    """The compiled kernels, or torch where they do not know the definition."""
    told = of_task(task, **how)
    default, by_torch = (answered(LOSSES[task](told.spec, backend=name), told, FLOAT).loss for name in ("auto", "torch"))
    torch.testing.assert_close(default, by_torch, rtol=1e-4, atol=1e-6)


def test_a_crop_is_rounded_only_in_an_image_of_few_anchors() -> None:
    """One box holds 24 anchors at most, nine boxes hold 50 and more."""
    boxes = [Box(0, k % 3, 20.3 + 4 * k, 50.7 - 4 * k, 37.3, 33.1) for k in range(9)]
    for count, alike in ((1, False), (9, True)):
        losses = []
        for crop in ("exact", "rounded"):
            spec = SegmentationSpec(num_classes=3, topk=24, crop=crop)
            told = Case(spec, (64, 64), 1, tuple(boxes[:count]), Prediction("near", 3), options={"prototypes": 4.0})
            held = run_assign(SegmentationLoss(spec), build(told, DOUBLE), DOUBLE)
            assert (len(held) >= 50) == alike
            losses.append(answered(SegmentationLoss(spec), told).loss)
        assert torch.allclose(losses[0], losses[1], rtol=1e-6) == alike


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
    ("spec", "release", "numbers"),
    [
        (SegmentationSpec, "8.3.214", {"crop": "exact", "mask_grid": "prototypes", "semantic_term": False, "lengthen": "never"}),
        (SegmentationSpec, "8.3.253", {"crop": "wrapped", "mask_grid": "prototypes", "semantic_term": False, "lengthen": "never"}),
        (SegmentationSpec, "8.4.7", {"crop": "wrapped", "mask_grid": "masks", "semantic_term": True, "lengthen": "first"}),
        (SegmentationSpec, "8.4.60", {"crop": "rounded", "lengthen": "first"}),
        (SegmentationSpec, "8.4.127", {"crop": "exact", "lengthen": "first"}),
        (OrientedSpec, "8.3.253", {"term_floor": 0.0, "angle_term": False, "turned_targets": False, "lengthen": "never"}),
        (OrientedSpec, "8.4.0", {"term_floor": 0.0, "angle_term": True, "turned_targets": True, "lengthen": "never"}),
        (OrientedSpec, "8.4.60", {"term_floor": 0.0, "lengthen": "first"}),
        (OrientedSpec, "8.4.127", {"term_floor": 0.01, "lengthen": "first"}),
        (PoseSpec, "8.1.0", {"lengthen": "never", "distance_term": False}),
        (PoseSpec, "8.4.60", {"lengthen": "first", "keypoint_aware": False}),
        (PoseSpec, "8.4.128", {"lengthen": "second", "keypoint_aware": False}),
    ],
)
def test_for_release_of_each_task(spec: type[LossSpec], release: str, numbers: dict[str, Any]) -> None:
    found = spec.for_release(release, num_classes=3)
    assert {name: getattr(found, name) for name in numbers} == numbers
    assert not found.newest
    assert spec.for_release("8.4.190", num_classes=3) == spec(num_classes=3)


@pytest.mark.parametrize(
    ("spec", "release", "numbers", "said"),
    [
        (SegmentationSpec, "8.0.99", {}, "older than .*, the oldest whose segment loss the twin follows"),
        (SegmentationSpec, "8.4.0", {}, "8.4.0 takes class 0 for background in its semantic term, .*; 8.4.7 no longer does"),
        (SegmentationSpec, "8.4.128", {"mask_aware": True}, "cannot be told mask_aware; the first that can is 8.4.190"),
        (OrientedSpec, "8.3.0", {}, "drops small boxes of an oblong image by exchanged sides"),
        (OrientedSpec, "8.4.10", {}, "short sides lengthened for the ground truth, .*; 8.4.39 no longer does"),
        (OrientedSpec, "8.4.60", {"class_weights": (1.0, 2.0, 3.0)}, "cannot be told class_weights; the first that can is 8.4.68"),
        (PoseSpec, "8.3.253", {"generation": 2}, "cannot be told generation; the first that can is 8.4.0"),
        (PoseSpec, "8.4.0", {"generation": 2, "flow": True}, "does not bound the errors in its likelihood"),
        (PoseSpec, "8.4.185", {"generation": 2}, "assigns by keypoints in another way, .*; 8.4.190 no longer does"),
        (PoseSpec, "8.4.60", {"topk": 20}, "keeps 10 anchors a box unless it is told topk2"),
        (PoseSpec, "8.4.60", {"sigmas": (0.1,) * 17}, "cannot be told sigmas; the first that can is 8.4.117"),
    ],
)
def test_for_release_refuses_by_name(spec: type[LossSpec], release: str, numbers: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        spec.for_release(release, num_classes=3, **numbers)


@pytest.mark.parametrize("one", UNFOLLOWED, ids=lambda one: f"{one.task} {one.first} to {one.until}")
def test_what_is_not_followed_ends_where_it_says(one: Unfollowed) -> None:
    definitions: tuple[dict[str, Any], ...] = ({}, {"generation": 2}, {"generation": 2, "flow": True}, {"topk": 20}, {"mask_aware": True})
    assert any(one.why in (unfollowed(one.first, told, one.task) or "") for told in definitions)
    assert not any(one.why in (unfollowed(one.until, told, one.task) or "") for told in definitions)


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
