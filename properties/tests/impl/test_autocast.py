"""Autocast around both passes changes no bit, in any task: the loss computes in its own dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from oracle.cases.build import build
from properties.tests.impl import oriented_inputs, test_segmentation_loss
from properties.tests.impl.pose_loops import Flow, batch
from properties.tests.impl.test_loss import CASE, SPEC, step
from twinloss import DetectionLoss, OrientedLoss, PoseLoss, PoseSpec, SegmentationLoss
from twinloss.backends.registry import BackendName


def detect(backend: BackendName) -> tuple[Tensor, ...]:
    return step(DetectionLoss(SPEC, backend=backend), build(CASE))


def segment(name: str) -> Callable[[BackendName], Any]:
    def answer(backend: BackendName) -> list[Tensor]:
        spec = test_segmentation_loss.SPECS[name]
        given = test_segmentation_loss.predictions(spec), test_segmentation_loss.targets(spec)
        return test_segmentation_loss.answer(SegmentationLoss(spec, backend=backend), *given)

    return answer


def oriented(backend: BackendName) -> tuple[Tensor, ...]:
    spec = oriented_inputs.SPEC
    return oriented_inputs.answer(OrientedLoss(spec, backend=backend), oriented_inputs.predictions(spec), oriented_inputs.targets())


def pose(**numbers: Any) -> Callable[[BackendName], Any]:
    def answer(backend: BackendName) -> list[Tensor]:
        spec = PoseSpec(num_classes=2, keypoint_shape=(5, 3), **numbers)
        given, flow = batch(spec, seed=3), Flow() if spec.flow else None
        loss, _ = PoseLoss(spec, flow=flow, backend=backend)(given.preds, given.targets)
        leaves = [*given.leaves().values(), *(flow.parameters() if flow else ())]
        found: tuple[Tensor | None, ...] = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
        return [loss.detach(), *(gradient for gradient in found if gradient is not None)]

    return answer


ANSWERS: dict[str, Callable[[BackendName], Any]] = {
    "detect": detect,
    **{f"segment, {name}": segment(name) for name in test_segmentation_loss.SPECS},
    "oriented": oriented,
    "pose": pose(),
    "pose, second generation": pose(generation=2),
}


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_autocast_changes_nothing(answer: Callable[[BackendName], Any], dtype: torch.dtype, backend: BackendName) -> None:
    outside = answer(backend)
    with torch.autocast("cpu", dtype=dtype):
        inside = answer(backend)
    assert len(inside) == len(outside) > 2
    assert all(torch.equal(a, b) for a, b in zip(outside, inside, strict=True))
