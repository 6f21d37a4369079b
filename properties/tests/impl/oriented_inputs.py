"""Inputs of the loss of oriented boxes, and its answer: loss and gradients. What tests on a GPU need is here, without the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from twinloss import Assignment, LossSpec, OrientedLoss, OrientedSpec

Batch = dict[str, Tensor]
Preds = dict[str, Any]

STRIDES = (8, 16, 32)
LOGITS = ("boxes", "scores", "angle")
UPSTREAM = torch.tensor([1.0, 0.5, -2.0, 3.0])
SPEC = OrientedSpec(num_classes=3)


def predictions(spec: LossSpec, images: int = 2, size: int = 96, seed: int = 0, dtype: torch.dtype = torch.float32) -> Preds:
    """Predictions of a head for square images of ``size`` pixels."""
    draw, bins = torch.Generator().manual_seed(seed), spec.reg_max
    anchors = sum((size // stride) ** 2 for stride in STRIDES)
    boxes = torch.randn(images, 4 * bins, anchors, generator=draw) * (2 if bins > 1 else 1.5) + (0 if bins > 1 else 2.5)
    scores = torch.randn(images, spec.num_classes, anchors, generator=draw) - 1
    angle = (torch.rand(images, 1, anchors, generator=draw) - 0.25) * math.pi
    feats = [torch.empty(images, 1, size // stride, size // stride) for stride in STRIDES]
    return {"boxes": boxes.to(dtype), "scores": scores.to(dtype), "angle": angle.to(dtype), "feats": feats}


def targets(rows: int = 12, images: int = 2, size: int = 96, seed: int = 0, classes: int = 3) -> Batch:
    """Boxes of 4 to 58 pixels, up to seven times as long as wide, in any images."""
    draw = torch.Generator().manual_seed(seed + 100)
    long = 3 + (4 * torch.rand(rows, generator=draw)).exp()
    sides = torch.stack([long, long / (1 + 6 * torch.rand(rows, generator=draw))], dim=1)
    xy, angle = torch.rand(rows, 2, generator=draw), (torch.rand(rows, 1, generator=draw) - 0.25) * math.pi
    image, label = torch.randint(images, (rows,), generator=draw), torch.randint(classes, (rows, 1), generator=draw)
    return {"batch_idx": image.float(), "cls": label.float(), "bboxes": torch.cat([xy, sides / size, angle], dim=1)}


def as_dtype(tensors: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The same with every tensor in a dtype."""
    return {key: value.to(dtype) if isinstance(value, Tensor) else value for key, value in tensors.items()}


def answer(criterion: OrientedLoss, preds: Preds, batch: Batch, held: Assignment | None = None) -> tuple[Tensor, ...]:
    """Loss, and gradients of a weighted sum of it."""
    leaves = {key: preds[key].detach().clone().requires_grad_() for key in LOGITS}
    given = {**preds, **leaves}
    loss, items = criterion(given, batch) if held is None else criterion.loss_given(given, batch, held)
    assert list(items) == ["box_loss", "cls_loss", "dfl_loss" if criterion.spec.reg_max > 1 else "l1_loss", "angle_loss"]
    torch.testing.assert_close(torch.stack(list(items.values())) * len(preds["boxes"]), loss.detach(), equal_nan=True)
    return loss.detach(), *torch.autograd.grad((loss * UPSTREAM.to(loss)).sum(), tuple(leaves.values()))
