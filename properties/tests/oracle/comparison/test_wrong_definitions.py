"""Wrong definitions of every task can be asked, so that a candidate that differs gets its explanation."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from oracle.cases.case import Box, Case, Prediction, Setting
from oracle.comparison.compare import compare
from oracle.comparison.explain import explain
from oracle.comparison.registry import TWINS
from oracle.contract.contender import Contender
from twinloss import LossSpec, OrientedSpec, PoseSpec, SegmentationSpec

NUMBERS: dict[str, Any] = {"num_classes": 2, "reg_max": 4, "strides": (8, 16), "topk": 3}
SPECS: dict[str, LossSpec] = {
    "detect": LossSpec(**NUMBERS),
    "segment": SegmentationSpec(**NUMBERS),
    "instance masks": SegmentationSpec(**NUMBERS, overlap_mask=False),
    "oriented": OrientedSpec(**NUMBERS),
    "pose": PoseSpec(**NUMBERS, keypoint_shape=(5, 3)),
    "pose with a flow": PoseSpec(**NUMBERS, keypoint_shape=(5, 3), generation=2, flow=True),
}
BOXES = (Box(0, 1, 30, 30, 40, 24), Box(1, 0, 40, 24, 30, 36))


class Silent:
    """The twin's loss with every term 1 % larger, or of another definition; no stage is shown."""

    def __init__(self, criterion: Any, factor: float) -> None:
        self.criterion, self.factor = criterion, factor

    def __call__(self, preds: Any, batch: Any) -> Any:
        loss, items = self.criterion(preds, batch)
        return loss * self.factor, {name: value * self.factor for name, value in items.items()}


def silent(factor: float = 1.0, **numbers: Any) -> Contender:
    def factory(spec: LossSpec, **options: Any) -> Any:
        return Silent(TWINS[spec.task](dataclasses.replace(spec, **numbers), **options), factor)

    return Contender("wrong", "none", factory)


def notes_of(contender: Contender, spec: LossSpec) -> list[tuple[str, str]]:
    extras = {"angle": (0.3, 1.2)} if spec.task == "oriented" else {}
    case = Case(spec, (64, 64), 2, BOXES, Prediction("near", seed=3), extras=extras)
    setting = Setting("float64")
    [result] = compare(case, setting, [contender], stages=("loss",)).results
    assert result.findings
    return explain(case, setting, contender, result.findings)


@pytest.mark.parametrize("name", SPECS)
def test_a_candidate_of_every_task_is_explained(name: str) -> None:
    torch.manual_seed(0)
    said = dict(notes_of(silent(topk=2), SPECS[name]))
    assert "K = 2 instead of 3" in said["looks like"]


@pytest.mark.parametrize("name", SPECS)
def test_a_difference_that_no_definition_explains_ends_in_factors(name: str) -> None:
    said = dict(notes_of(silent(factor=1.01), SPECS[name]))
    assert "1.01" in said["looks like"]
