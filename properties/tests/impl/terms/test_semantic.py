"""The semantic term against the definition, dense and in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from properties.tests.impl.assignment.test_assign import Sizes
from twinloss import SegmentationLoss, SegmentationSpec
from twinloss.masks.sampling import nearest
from twinloss.terms.semantic import class_map, semantic_term

some = settings(max_examples=settings().max_examples // 2)
ROUNDING = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@st.composite
def inputs(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, C, h_s, w_s) in float64, and on the masks' grid the class (B, h, w) and whether an instance shows."""
    images, classes = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    grid = draw(st.sampled_from([(rows, columns), (2 * rows, 2 * columns), (7, 5)]))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    logits = torch.randn(images, classes, rows, columns, generator=noise, dtype=torch.float64) * draw(st.sampled_from([0.0, 1.0, 30.0]))
    covered = torch.rand(images, *grid, generator=noise) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    return logits, torch.randint(0, classes, (images, *grid), generator=noise).float(), covered


def definition(logits: Tensor, sem_masks: Tensor, covered: Tensor) -> list[Tensor]:
    """The term and its gradient, with a target for each logit."""
    logits = logits.detach().to(torch.float64).requires_grad_()
    rows, columns = logits.shape[-2:]
    target = torch.zeros_like(logits)
    for image in range(len(logits)):
        for y in range(rows):
            for x in range(columns):
                at = image, y * covered.shape[1] // rows, x * covered.shape[2] // columns
                if covered[at]:
                    target[image, int(sem_masks[at]), y, x] = 1
    entropy = torch.logaddexp(logits, torch.zeros_like(logits)) - logits * target
    share = logits.sigmoid()
    dice = 1 - (2 * (share * target).sum((2, 3)) + 1) / (share.sum((2, 3)) + target.sum((2, 3)) + 1)
    term = entropy.mean() / 2 + dice.mean() / 2
    return [term.detach(), *torch.autograd.grad(term, logits)]


def answer(logits: Tensor, sem_masks: Tensor, covered: Tensor) -> list[Tensor]:
    logits = logits.detach().clone().requires_grad_()
    term = semantic_term(logits, class_map(sem_masks, covered, logits.shape))
    return [term.detach(), *torch.autograd.grad(term, logits)]


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@some
@given(drawn=inputs())
def test_definition(dtype: torch.dtype, drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, *targets = drawn
    found, expected = answer(logits.to(dtype), *targets), definition(logits.to(dtype), *targets)
    assert found[1].dtype == dtype
    # The term holds 1 less a quotient near 1, a gradient a probability near 1 less 1, and the definition's entropy a difference of numbers
    # up to 100. A gradient is 1 / (B · C · pixels) at most, so that float16 rounds the smallest to 0.
    least = 1e-14 if dtype == torch.float64 else torch.finfo(torch.float32).eps
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= ROUNDING[dtype if ours.dim() else torch.float32] * theirs.abs().max() + least


@some
@given(inputs())
def test_finite_differences(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, sem_masks, covered = drawn
    classes = class_map(sem_masks, covered, logits.shape)
    torch.autograd.gradcheck(lambda x: semantic_term(x, classes), [logits.requires_grad_()], eps=1e-6, atol=1e-6)


def test_class_outside_of_every_instance_is_not_used() -> None:
    sem_masks = torch.tensor([[[1.0, math.nan], [-7.0, 99.0]]])
    covered = torch.tensor([[[True, False], [False, False]]])
    assert class_map(sem_masks, covered, torch.Size([1, 2, 2, 2])).tolist() == [[[1, -1], [-1, -1]]]


def test_classes_are_truncated_toward_zero() -> None:
    assert class_map(torch.tensor([[[1.9, 2.0]]]), torch.ones(1, 1, 2, dtype=torch.bool), torch.Size([1, 3, 1, 2])).tolist() == [[[1, 2]]]


def test_masked_channels_contribute_the_limit() -> None:
    """−inf where the target is 0 adds nothing to the cross-entropy, and infinity where it is 1; gradients are finite."""
    logits, classes = torch.zeros(1, 2, 1, 2, dtype=torch.float64), torch.tensor([[[0, -1]]])
    logits[0, 1] = -torch.inf
    term, gradient = answer(logits, classes.clamp(min=0).float(), classes >= 0)
    # cross-entropy: 2 log 2 over 4 logits; Dice of class 0: 1 − (2·½ + 1) / (1 + 1 + 1), of class 1: 1 − 1 / 1
    assert term.item() == pytest.approx((2 * math.log(2) / 4 + (1 / 3) / 2) / 2)
    assert gradient.isfinite().all()
    logits[0, 0, 0, 0] = -torch.inf
    term, gradient = answer(logits, classes.clamp(min=0).float(), classes >= 0)
    assert term.isposinf()
    assert gradient.isfinite().all()


def test_small_cross_entropy_keeps_its_digits() -> None:
    """Confident and right everywhere: the term is 5e-5, although the logits add up to 1,280."""
    logits = torch.full((1, 2, 8, 8), -10.0)
    logits[:, 1] = 10.0
    targets = torch.ones(1, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool)
    found, expected = answer(logits, *targets)[0], definition(logits, *targets)[0]
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)


def test_nearest_rounds_as_float32() -> None:
    """62 → 56 takes 30 at place 28, where the exact product is 31 (section 4)."""
    assert nearest(62, 56, torch.device("cpu"))[28] == 30
    assert nearest(4, 8, torch.device("cpu")).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_memory() -> None:
    """The largest tensor besides the gradient is the logits of one image."""
    logits = torch.randn(8, 20, 32, 32, requires_grad=True)
    classes = torch.randint(-1, 20, (8, 32, 32), dtype=torch.int32)
    with Sizes() as sizes:
        semantic_term(logits, classes).backward()
    assert sorted(sizes.made)[-2:] == [logits[0].nbytes, logits.nbytes]


def one_box() -> tuple[dict[str, Any], dict[str, Any]]:
    """Predictions with semantic logits, and a batch of one box without the classes of its pixels."""
    preds = {"boxes": torch.zeros(1, 16, 64), "scores": torch.zeros(1, 2, 64), "feats": [torch.empty(1, 1, 8, 8)]}
    preds |= {"mask_coefficient": torch.zeros(1, 2, 64), "proto": (torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8))}
    masks = torch.zeros(1, 16, 16)
    masks[0, 4:12, 4:12] = 1
    batch = {"batch_idx": torch.zeros(1), "cls": torch.zeros(1), "bboxes": torch.tensor([[0.5, 0.5, 0.5, 0.5]]), "masks": masks}
    return preds, batch


def test_semantic_logits_without_a_map_of_classes_are_named() -> None:
    loss = SegmentationLoss(SegmentationSpec(num_classes=2, reg_max=4, strides=(8,)))
    with pytest.raises(ValueError, match=r"semantic logits, and batch no 'sem_masks'; give the class of each pixel"):
        loss(*one_box())


def test_masks_that_the_definition_resizes_have_no_semantic_term() -> None:
    preds, batch = one_box()
    batch["sem_masks"] = torch.zeros(1, 16, 16)
    spec = SegmentationSpec(num_classes=2, reg_max=4, strides=(8,), mask_grid="prototypes")
    with pytest.raises(ValueError, match=r"from \(16, 16\) to \(8, 8\).*give SegmentationSpec\(semantic_term=False"):
        SegmentationLoss(spec)(preds, batch)
    without, _ = SegmentationLoss(spec)(preds | {"proto": preds["proto"][0]}, batch)
    assert without[-1] == 0
    older, _ = SegmentationLoss(replace(spec, semantic_term=False))(preds, batch)
    torch.testing.assert_close(older, without[:4])
