"""Switches of older releases in any combination, also of those that no release had: each backend computes the definition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from oracle.definition.tasks import DEFINITIONS
from properties.tests.impl import oriented_inputs, pose_loops
from properties.tests.impl import test_segmentation_loss as segmentation
from twinloss import Assignment, LossSpec, OrientedSpec, PoseSpec, SegmentationSpec
from twinloss.loss import LOSSES

SMALL: dict[str, Any] = {"num_classes": 3, "strides": (8, 16, 32)}
SPECS: dict[str, LossSpec] = {
    "segment": SegmentationSpec(**SMALL, overlap_mask=False),
    "oriented": OrientedSpec(**SMALL),
    "pose": PoseSpec(**SMALL, keypoint_shape=(3, 3), generation=2),
}
OTHERS: dict[str, Any] = {"lengthen": "never", "anchor_weights": "sum", "mask_grid": "prototypes", "crop": "wrapped"}


def combined() -> Iterator[tuple[str, LossSpec]]:
    """Definitions with two of their switches set otherwise than the newest has them, with and without a distribution."""
    for task, spec in SPECS.items():
        for pair in combinations(spec.newest_switches, 2):
            for bins in (1, 4):
                told = {name: OTHERS.get(name, False) for name in pair}
                yield f"{task} {' '.join(pair)} {bins}", replace(spec, reg_max=bins, **told)


def inputs(spec: LossSpec) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Predictions, detached, and targets."""
    if isinstance(spec, SegmentationSpec):
        grid = (24, 32)  # of the prototypes: masks of another grid have no semantic term where that is the mask term's
        return segmentation.predictions(spec, grid), segmentation.targets(spec, grid=grid if spec.semantic_term else (12, 20))
    if isinstance(spec, OrientedSpec):
        return oriented_inputs.predictions(spec), oriented_inputs.targets()
    assert isinstance(spec, PoseSpec)
    given = pose_loops.batch(spec)
    return {key: value.detach() if isinstance(value, Tensor) else value for key, value in given.preds.items()}, given.targets


def answer(criterion: Any, spec: LossSpec, held: Assignment, dtype: torch.dtype) -> list[Tensor]:
    """Loss, and gradients of a weighted sum of its terms by boxes and scores."""
    preds, batch = inputs(spec)
    preds = {key: _in(value, dtype) for key, value in preds.items()}
    leaves = [preds[key].requires_grad_() for key in ("boxes", "scores")]
    loss, _ = criterion.loss_given(preds, batch, held)
    return [loss.detach(), *torch.autograd.grad((loss * torch.arange(1.0, len(loss) + 1)).sum(), leaves)]


def _in(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_in(each, dtype) for each in value)
    return value.detach().clone().to(dtype)


COMBINED = dict(combined())


@pytest.mark.parametrize("name", COMBINED)
def test_every_backend_computes_the_definition(name: str) -> None:
    spec = COMBINED[name]
    held = LOSSES[spec.task](spec, backend="torch").assign(*inputs(spec))
    assert len(held) > 5
    expected = answer(DEFINITIONS[spec.task](spec), spec, held, torch.float64)
    for backend, dtype in (("torch", torch.float64), ("torch", torch.float32), ("native", torch.float32)):
        if backend == "native" and spec.beyond_kernels:
            continue
        found = answer(LOSSES[spec.task](spec, backend=backend), spec, held, dtype)  # type: ignore[arg-type]
        for ours, theirs in zip(found, expected, strict=True):
            allowed = 1e-4 * theirs.abs().max().item()
            assert ((ours.double() - theirs).abs() <= allowed + 1e-4 * theirs.abs()).all(), f"on {backend}: {ours} is not {theirs}"
