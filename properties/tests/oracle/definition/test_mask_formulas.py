"""Formulas of the masks against worked numbers and against torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from oracle.definition.mask_formulas import (
    dice_loss,
    entropy,
    inside_crop,
    mask_iou,
    mask_loss,
    nearest_inputs,
    resized_bilinear,
    resized_nearest,
    semantic_target,
)

SIZES = ((7, 5), (14, 10), (3, 4), (28, 20), (7, 10), (1, 1), (13, 3))


@pytest.mark.parametrize("size", SIZES)
def test_resizing_is_that_of_torch(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    expected = interpolate(maps, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized_bilinear(maps, size), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(resized_nearest(maps, size), interpolate(maps, size=size, mode="nearest"))


def test_the_product_of_nearest_is_float32() -> None:
    """In float64 28 · 62 / 56 is 31; float32 rounds it below."""
    assert nearest_inputs(62, 56)[28] == 30
    assert nearest_inputs(8, 4).tolist() == [0, 2, 4, 6]


def test_a_crop_keeps_the_columns_from_the_left_border_to_before_the_right_one() -> None:
    corners = torch.tensor([[1.0, 0.0, 3.0, 1.0], [0.5, -2.0, 2.5, 9.0], [1.2, 0.0, 1.8, 3.0]])
    inside = inside_crop(corners, (3, 4))
    assert inside.any(1).int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert inside.any(2).int().tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]


def test_the_iou_of_empty_masks_is_zero() -> None:
    nothing, some = torch.zeros(1, 2, 2, dtype=torch.bool), torch.tensor([[[True, True], [False, False]]])
    assert mask_iou(nothing, nothing).item() == 0
    assert mask_iou(some, some).item() == 1
    assert mask_iou(some, torch.ones(1, 2, 2, dtype=torch.bool)).item() == 0.5


def test_the_entropy_is_that_of_torch_with_fractions_and_large_logits() -> None:
    logits = torch.tensor([-800.0, -3.0, 0.0, 2.5, 40.0, 800.0], dtype=torch.float64)
    for target in (0.0, 0.3, 1.0):
        expected = binary_cross_entropy_with_logits(logits, torch.full_like(logits, target), reduction="none")
        torch.testing.assert_close(entropy(logits, torch.full_like(logits, target)), expected)


def test_the_slope_at_zero_is_a_half_less_the_target() -> None:
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    entropy(logits, torch.tensor([0.0, 1.0, 0.25])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [0.5, -0.5, 0.25]


def test_a_masked_channel_contributes_its_limit() -> None:
    logits = torch.tensor([-math.inf, -math.inf], dtype=torch.float64, requires_grad=True)
    found = entropy(logits, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert found.tolist() == [0, math.inf]
    (slope,) = torch.autograd.grad(found[0], logits)
    assert slope.tolist() == [0, 0]


def test_the_mask_loss_divides_by_the_exact_area() -> None:
    """Two pixels of ln 2 on 4 × 4, in a box of an eighth of the image: 2 ln 2 / (16 / 8)."""
    found = mask_loss(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64), 16, torch.tensor(0.125, dtype=torch.float64))
    assert found.item() == pytest.approx(math.log(2))


def test_a_box_without_area_has_no_loss() -> None:
    logits = torch.ones(3, dtype=torch.float64, requires_grad=True)
    loss = mask_loss(logits, torch.zeros(3), 16, torch.tensor(0.0, dtype=torch.float64))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.tolist() == [0, 0, 0]


def test_dice_of_a_certain_right_answer_is_near_zero_and_of_a_wrong_one_near_one() -> None:
    target = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    target[0, 0] = 1
    right, wrong = dice_loss(200 * target - 100, target), dice_loss(100 - 200 * target, target)
    assert right.tolist() == [[pytest.approx(0), pytest.approx(0)]]
    assert wrong.tolist() == [[pytest.approx(1 - 1 / 65), pytest.approx(1 - 1 / 65)]]


def test_a_pixel_without_instance_has_no_class() -> None:
    target = semantic_target(torch.tensor([[[1.0, 1.9, 0.0]]]), torch.tensor([[[True, True, False]]]), 3)
    assert target.tolist() == [[[[0, 0, 0]], [[1, 1, 0]], [[0, 0, 0]]]]
