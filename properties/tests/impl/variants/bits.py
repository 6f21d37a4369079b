"""Bits that the torch backend claims, at every length modulo the longest vector, and in memory that begins at any element.

Torch computes a tensor a vector at a time, and its last elements one by one, with other functions, whose last bits may be others. So
where a number is in a tensor may show in it: of a sigmoid, of a power, of a product with a vector, and of sums. What is claimed here does
not rest on these. All else that the torch backend promises is promised to rounding.
"""

from __future__ import annotations

import dataclasses
import math
import os

import pytest
import torch
from torch import Tensor

from oracle.cases.build import build
from oracle.cases.case import Box, Case, Inputs, Prediction, Setting
from twinloss import DetectionLoss, LossSpec, ciou, decode_boxes, make_anchors

VECTOR = 16
"""float32 in the longest vector, AVX-512's."""

LENGTHS = range(1, VECTOR + 2)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
SPEC = LossSpec(num_classes=3, reg_max=5, strides=(8,), topk=4)


def test_the_variant_is_the_one_that_was_asked_for() -> None:
    found, asked = torch.backends.cpu.get_cpu_capability(), os.environ["ATEN_CPU_CAPABILITY"]
    if found.lower() != asked:
        pytest.skip(f"this processor has {found}, not {asked}")


def offset(tensor: Tensor, by: int = 1) -> Tensor:
    """The same numbers in memory that begins ``by`` elements after an allocation does."""
    memory = torch.empty(tensor.numel() + by, dtype=tensor.dtype)[by:]
    return memory.view(tensor.shape).copy_(tensor.detach())


def case(columns: int, boxes: tuple[Box, ...] = (), seed: int = 0, spec: LossSpec = SPEC) -> Case:
    """One level of one row of cells: so many anchors in each of two images."""
    own = (Box(0, 1, 4.0 * columns, 4, 8.0 * columns, 7), Box(1, 0, 4.0 * columns, 3, 6.0 * columns, 9), *boxes)
    return Case(spec, (8, 8 * columns), 2, own, Prediction("near", seed=seed, spread=0.5))


def loss_and_gradients(inputs: Inputs, spec: LossSpec = SPEC) -> tuple[Tensor, Tensor, Tensor]:
    leaves = {name: inputs.preds[name].detach().requires_grad_() for name in ("boxes", "scores")}
    loss, _ = DetectionLoss(spec, backend="torch")({**inputs.preds, **leaves}, inputs.batch)
    boxes, scores = torch.autograd.grad(loss.sum(), tuple(leaves.values()))
    return loss.detach(), boxes, scores


@DTYPES
def test_an_overlap_is_the_same_wherever_its_pair_is(dtype: str) -> None:
    draw = torch.Generator().manual_seed(0)
    low, size = (torch.rand(2, 64, 2, generator=draw, dtype=torch.float64) * 50 for _ in range(2))
    first, second = torch.cat([low, low + size], -1).to(getattr(torch, dtype))
    whole = ciou(first.T.contiguous().T, second.T.contiguous().T)
    for length in range(1, 2 * VECTOR + 2):
        for start in (0, 1, 7):
            part = slice(start, start + length)
            columns = (boxes[part].T.contiguous().T for boxes in (first, second))
            assert torch.equal(ciou(*columns), whole[part]), (length, start)


@DTYPES
@pytest.mark.parametrize("pairs_at_once", [1, 7, 40])
def test_of_equal_boxes_the_first_wins_however_pairs_are_sliced(pairs_at_once: int, dtype: str) -> None:
    for columns in range(2, 2 + VECTOR):
        twins = tuple(Box(0, label, 4.0 * columns + 3, 4, 6.0 * columns, 8) for label in (2, 0, 2, 1))
        tried = dataclasses.replace(case(columns, twins, seed=columns), spec=dataclasses.replace(SPEC, topk=100))
        inputs = build(tried, Setting(dtype))  # type: ignore[arg-type]
        one, other = (DetectionLoss(tried.spec, backend="torch", pairs_at_once=most).assign(*inputs) for most in (1 << 20, pairs_at_once))
        for name in ("image", "anchor", "box"):
            assert torch.equal(getattr(one, name), getattr(other, name)), (columns, name)
        torch.testing.assert_close(one.weight, other.weight, rtol=2e-6, atol=0)
        assert {2} == set(one.box[(one.box >= 2)].tolist()), columns  # row 2 is the first of the equal ones


@DTYPES
def test_the_loss_is_the_same_in_any_memory(dtype: str) -> None:
    for columns in LENGTHS:
        inputs = build(case(columns), Setting(dtype))  # type: ignore[arg-type]
        logits = [inputs.preds[name].detach() for name in ("boxes", "scores")]
        parts = torch.cat(logits, dim=1).split([part.shape[1] for part in logits], dim=1)
        expected, *gradients = loss_and_gradients(inputs)
        for memory in ([offset(part) for part in logits], [offset(part, by=5) for part in logits], parts):
            found, *others = loss_and_gradients(Inputs({**inputs.preds, "boxes": memory[0], "scores": memory[1]}, inputs.batch))
            assert torch.equal(found, expected), columns
            for ours, theirs in zip(others, gradients, strict=True):  # to rounding: a sigmoid is where its logit lies
                torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


@DTYPES
def test_the_older_layout_is_the_same_loss(dtype: str) -> None:
    for columns in LENGTHS:
        tried = case(columns)
        inputs = build(tried, Setting(dtype))  # type: ignore[arg-type]
        whole = torch.cat([inputs.preds["boxes"], inputs.preds["scores"]], dim=1).detach()
        old, _ = DetectionLoss(SPEC, backend="torch")([whole.unflatten(2, (1, columns))], inputs.batch)
        assert torch.equal(old, loss_and_gradients(inputs)[0]), columns


@DTYPES
def test_the_loss_is_that_of_its_assignment(dtype: str) -> None:
    for columns in LENGTHS:
        inputs, criterion = build(case(columns), Setting(dtype)), DetectionLoss(SPEC, backend="torch")  # type: ignore[arg-type]
        loss, _ = criterion(*inputs)
        assert torch.equal(loss, criterion.loss_given(*inputs, criterion.assign(*inputs))[0]), columns


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_a_masked_class_contributes_its_limit(dtype: str) -> None:
    for columns in LENGTHS:
        tried = case(columns)
        masked, limit = (build(tried, Setting(dtype)) for _ in range(2))  # type: ignore[arg-type]
        for inputs, value in ((masked, -math.inf), (limit, -1e4)):
            with torch.no_grad():
                inputs.preds["scores"][:, 2] = value
        for found, expected in zip(loss_and_gradients(masked), loss_and_gradients(limit), strict=True):
            assert torch.equal(found, expected), columns
        assert (loss_and_gradients(masked)[2][:, 2] == 0).all()


@DTYPES
def test_what_nothing_reads_changes_nothing(dtype: str) -> None:
    few = dataclasses.replace(SPEC, lengthen="never")
    for columns in range(3, 3 + VECTOR):
        corner = (Box(0, 1, 6, 4, 10, 8), Box(1, 2, 6, 5, 10, 9))
        tried = Case(few, (8, 8 * columns), 2, corner, Prediction("near", spread=0.5))
        clean, poisoned = (build(tried, Setting(dtype)) for _ in range(2))  # type: ignore[arg-type]
        with torch.no_grad():
            poisoned.preds["boxes"][:, :, columns - 1] = math.nan
        for found, expected in zip(loss_and_gradients(poisoned, few), loss_and_gradients(clean, few), strict=True):
            assert torch.equal(found, expected), columns


@DTYPES
def test_decoded_corners_are_the_same_wherever_their_anchor_is_to_rounding(dtype: str) -> None:
    for columns in LENGTHS:
        tried = case(columns)
        boxes = build(tried, Setting(dtype)).preds["boxes"].detach()  # type: ignore[arg-type]
        centres, _ = make_anchors(tried.grids, SPEC.strides, dtype=boxes.dtype)
        whole = decode_boxes(boxes, centres, SPEC.reg_max)
        part = decode_boxes(offset(boxes)[..., 1:], centres[1:], SPEC.reg_max)
        torch.testing.assert_close(part, whole[:, 1:], rtol=1e-6, atol=1e-6)
