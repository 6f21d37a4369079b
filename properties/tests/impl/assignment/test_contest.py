"""Who wins an anchor that several boxes picked and none overlaps, against the definition in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from oracle.definition.tasks import DEFINITIONS
from properties.tests.impl.test_segmentation_loss import SPEC, predictions, targets
from twinloss import DetectionLoss, LossSpec, SegmentationLoss
from twinloss.loss import LOSSES

PLAIN = replace(SPEC, reg_max=1, topk=150)
SPECS: dict[str, LossSpec] = {
    "plain": PLAIN,
    "no exponent": replace(PLAIN, beta=0.0),
    "no exponent, second cut": replace(PLAIN, beta=0.0, topk2=3),
    "detection without an exponent": LossSpec(num_classes=3, reg_max=1, topk=150, beta=0.0),
}


@pytest.mark.parametrize("ties", ["stable", "reference"])
@pytest.mark.parametrize("conflicts", ["overlap", "pickers"])
@pytest.mark.parametrize("name", SPECS)
def test_an_anchor_that_no_box_overlaps(name: str, conflicts: Any, ties: Any) -> None:
    spec = SPECS[name]
    preds, batch = predictions(PLAIN, dtype=torch.float64), targets(PLAIN)
    batch["bboxes"] = batch["bboxes"].double()
    preds["boxes"][:, :, ::2] = -50.0  # turned inside out
    held = LOSSES[spec.task](spec, backend="torch", conflicts=conflicts, ties=ties).assign(preds, batch)
    expected = DEFINITIONS[spec.task](spec, ties, conflicts=conflicts).assign(preds, batch)
    assert len(expected) > 10
    for column in ("image", "anchor", "box"):
        assert torch.equal(getattr(held, column), getattr(expected, column))
    torch.testing.assert_close(held.weight, expected.weight)


def test_the_kernels_leave_definitions_without_an_exponent_to_torch() -> None:
    spec = SPECS["no exponent"]
    preds, batch = predictions(PLAIN), targets(PLAIN)
    words = "with beta=0 an anchor that boxes contest without overlapping it has a weight, .*; use backend='torch'"
    with pytest.raises(ValueError, match=words):
        SegmentationLoss(spec, backend="native")(preds, batch)
    found, expected = (SegmentationLoss(spec, backend=backend)(preds, batch)[0] for backend in ("auto", "torch"))
    assert torch.equal(found, expected)
    assert DetectionLoss(LossSpec(num_classes=3)).spec.beyond_kernels is None
