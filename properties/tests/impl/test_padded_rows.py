"""With ``validate=False`` rows of an image or class that does not exist count for nothing, whatever else they hold, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from oracle.cases.build import build
from properties.tests.impl import oriented_inputs, test_segmentation_loss
from properties.tests.impl.pose_loops import batch as pose_batch
from properties.tests.impl.test_loss import CASE, SPEC
from twinloss import DetectionLoss, OrientedLoss, PoseLoss, PoseSpec, SegmentationLoss
from twinloss.backends.registry import BackendName

Given = tuple[Any, dict[str, Any], dict[str, Tensor], tuple[str, ...]]
"""A loss's class with its definition, predictions, targets, and the keys of those that are one a row."""

ROW = ("batch_idx", "cls", "bboxes")


def segment(name: str) -> Given:
    spec = test_segmentation_loss.SPECS[name]
    keys = ROW if spec.overlap_mask else (*ROW, "masks")
    return (SegmentationLoss, spec), test_segmentation_loss.predictions(spec), test_segmentation_loss.targets(spec), keys


def pose(**numbers: Any) -> Given:
    spec = PoseSpec(num_classes=2, keypoint_shape=(5, 3), **numbers)
    given = pose_batch(spec, seed=3)
    return (PoseLoss, spec), given.preds, given.targets, (*ROW, "keypoints")


GIVEN: dict[str, Callable[[], Given]] = {
    "detect": lambda: ((DetectionLoss, SPEC), *build(CASE), ROW),
    "segment, index maps": lambda: segment("plain"),
    "segment, instance masks": lambda: segment("instance masks"),
    "segment, mask-aware": lambda: segment("mask-aware"),
    "oriented": lambda: (
        (OrientedLoss, oriented_inputs.SPEC),
        oriented_inputs.predictions(oriented_inputs.SPEC),
        oriented_inputs.targets(),
        ROW,
    ),
    "pose": pose,
    "pose, second generation": lambda: pose(generation=2, flow=False),
}


def answer(criterion: Any, preds: dict[str, Any], batch: dict[str, Tensor]) -> list[Tensor]:
    leaves = {key: value.detach().requires_grad_() for key, value in preds.items() if isinstance(value, Tensor)}
    loss, _ = criterion({**preds, **leaves}, batch)
    found: tuple[Tensor | None, ...] = torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True)
    return [loss.detach(), *(gradient for gradient in found if gradient is not None)]


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize(("key", "value"), [("batch_idx", -1), ("batch_idx", 99), ("cls", -1), ("cls", 99)])
def test_they_change_no_bit(given: Callable[[], Given], key: str, value: int, backend: BackendName) -> None:
    (kind, spec), preds, batch, row_keys = given()
    padded = {name: torch.cat([column, column[:4]]) if name in row_keys else column for name, column in batch.items()}
    padded[key] = padded[key].clone()
    padded[key][len(batch[key]) :] = value
    criterion = kind(spec, backend=backend, validate=False)
    expected, found = (answer(criterion, preds, rows) for rows in (batch, padded))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    with pytest.raises(ValueError, match=rf"batch\['{key}'\] row {len(batch[key])} is"):
        kind(spec, backend=backend)(preds, padded)
