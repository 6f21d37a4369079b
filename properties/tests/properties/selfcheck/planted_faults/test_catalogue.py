"""Every planted fault runs and ends with its call; faults that any batch shows are caught at their stage."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from oracle.cases.build import build
from oracle.cases.case import Case, Prediction, Setting
from oracle.cases.tasks import task_of
from oracle.comparison.compare import compare
from oracle.comparison.registry import TWINS
from oracle.contract.run import run_loss
from oracle.contract.verdict import Verdict
from properties.differential.shrink import shrunk
from properties.divergences.small_cases import box, small_case
from properties.selfcheck.planted_faults import CATALOGUE, Fault
from properties.selfcheck.planted_faults.run_catalogue import SOUND
from twinloss import OrientedSpec, PoseSpec, SegmentationSpec

DOUBLE = Setting("float64")
NEAR = Prediction("near", seed=1, spread=0.25)
# Two images, one of them with overlapping boxes of three classes, one at the border, one short.
CASE = dataclasses.replace(
    small_case(
        box(4, 4, 44, 36),
        box(8, 6, 50, 40, label=2),
        box(-6, 30, 20, 61, label=1),
        box(30, 40, 35, 46, label=2),
        box(20, 20, 60, 30, image=1),
        images=2,
        size=(64, 96),
        num_classes=3,
        reg_max=16,
        strides=(8, 16),
        topk=3,
    ),
    prediction=NEAR,
)
_FIELDS = {field.name: getattr(CASE.spec, field.name) for field in dataclasses.fields(CASE.spec)}
CASES = {
    "detect": CASE,
    "oriented": dataclasses.replace(
        CASE,
        spec=OrientedSpec(**{name: value for name, value in _FIELDS.items() if name != "gains"}),
        extras={"angle": (0.0, 0.3, -0.2, 1.0, 0.5)},
    ),
    "segment": dataclasses.replace(
        CASE, spec=SegmentationSpec(**_FIELDS, mask_aware=True), options={"prototypes": 4.0, "semantic": 1.0, "mask_height": 20.0}
    ),
    "pose": dataclasses.replace(
        CASE,
        spec=PoseSpec(
            **{name: value for name, value in _FIELDS.items() if name != "gains"}, keypoint_shape=(17, 3), generation=2, flow=True
        ),
    ),
}
"""The batch of each task."""

QUICK = {
    "one candidate more": "assign",
    "α + 0.01": "metrics",
    "bins' shares swapped": "loss_given",
    "gains swapped": "loss_given",
    "anchors off by 1e-4 cells": "anchors",
    "width and height of the image swapped": "targets",
    "right and bottom swapped": "decode",
    "no side lengthened": "candidates",
    "weight without O": "assign",
    "weight too large by 1e-4": "assign",
    "no factor of images": "loss_given",
    "α_c differentiated": "loss_given",
    "gradient through S": "loss_given",
}


def named(name: str) -> Fault:
    (fault,) = [fault for fault in CATALOGUE if (fault.task, fault.name) == ("detect", name)]
    return fault


@pytest.mark.parametrize(("name", "stage"), QUICK.items())
def test_a_fault_is_caught_at_its_stage_and_end_to_end(name: str, stage: str) -> None:
    fault = named(name)
    seen, loss_only = compare(CASE, DOUBLE, [fault.contender(), fault.loss_only()]).results
    assert (seen.verdict, seen.findings[0].stage) == (Verdict.DIFFER, stage)
    assert (loss_only.verdict, loss_only.findings[0].stage) == (Verdict.DIFFER, "loss")


def test_the_twin_itself_is_not() -> None:
    sound = Fault(SOUND, "", "")
    assert [said.verdict for said in compare(CASE, DOUBLE, [sound.contender(), sound.loss_only()]).results] == [Verdict.AGREE] * 2


def test_the_catalogue_names_what_it_violates() -> None:
    assert len(CATALOGUE) >= 60
    assert len({(fault.task, fault.name) for fault in CATALOGUE}) == len(CATALOGUE)
    assert all(fault.violates.endswith(".") and fault.section for fault in CATALOGUE)
    assert all(fault.patches or fault.spec or fault.before or fault.after for fault in CATALOGUE)


@pytest.mark.parametrize("fault", CATALOGUE, ids=lambda fault: f"{fault.task}: {fault.name}")
def test_every_fault_runs_and_is_gone_after_the_call(fault: Fault) -> None:
    case, twin = CASES[fault.task], TWINS[fault.task]
    flow = task_of(case).flow(case)
    given: dict[str, Any] = {} if flow is None else {"flow": flow}
    sound, faulty, again = (
        run_loss(make(case.spec, **given), build(case), Setting(), terms=case.spec.terms, flow=flow)
        for make in (twin, fault.criterion, twin)
    )
    assert faulty.loss.shape == (len(case.spec.terms),)
    assert torch.equal(sound.loss, again.loss)
    assert all(torch.equal(sound.gradients[name], again.gradients[name]) for name in sound.gradients)


def test_a_failing_batch_shrinks_to_what_makes_it_fail() -> None:
    def fails(case: Case) -> bool:
        return any(box.label == 2 for box in case.boxes) and 16 in case.spec.strides

    least = shrunk(CASE, fails, 5.0)
    assert fails(least)
    assert (least.batch_size, len(least.boxes), least.spec.strides) == (1, 1, (16,))
    assert least.num_anchors == 1
    assert shrunk(CASE, fails, 0.0) == CASE
