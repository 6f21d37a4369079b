"""Conversions between the suite's batches and answers and those of other implementations.

Shape suffixes: B images, A anchors, C classes, R bins, N boxes of the batch, M boxes of the fullest image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.fx.experimental.symbolic_shapes
from torch import Tensor

Answer = tuple[Tensor, dict[str, Tensor]]


class PaddedTargets(NamedTuple):
    """Ground truth padded to the fullest image: classes (B, M), corners (B, M, 4), and 1 for boxes, 0 for padding (B, M)."""

    labels: Tensor
    corners: Tensor
    mask: Tensor


def level_maps(preds: Any) -> list[Tensor]:
    """Returns the predictions as one map (B, 4R + C, H, W) for each level."""
    both = torch.cat([preds["boxes"], preds["scores"]], 1)
    sizes = [level.shape[-2:] for level in preds["feats"]]
    parts = both.split([height * width for height, width in sizes], 2)
    return [part.reshape(*both.shape[:2], *size) for part, size in zip(parts, sizes, strict=True)]


def image_size(preds: Any, spec: Any) -> tuple[int, int]:
    """Returns height and width of the images in pixels."""
    height, width = preds["feats"][0].shape[-2:]
    return height * spec.strides[0], width * spec.strides[0]


def corners(batch: Any) -> Tensor:
    """Returns the boxes (N, 4) as corners, in shares of the image."""
    boxes = batch["bboxes"]
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def rows(batch: Any, boxes: Tensor) -> Tensor:
    """Returns rows (N, 6) of image, class and four numbers of each box."""
    return torch.cat([batch["batch_idx"].reshape(-1, 1), batch["cls"].reshape(-1, 1), boxes], 1)


def padded(preds: Any, batch: Any, scale: Sequence[float], least: int = 0) -> PaddedTargets:
    """Returns padded targets.

    Args:
        preds, batch: the batch.
        scale: four factors of the corners, which are in shares of the image.
        least: smallest M.
    """
    image = batch["batch_idx"].reshape(-1).long()
    count = len(preds["boxes"])
    most = max([least, *torch.bincount(image, minlength=count).tolist()])
    boxes = corners({"bboxes": batch["bboxes"] * batch["bboxes"].new_tensor(scale)})
    found = PaddedTargets(torch.zeros(count, most, dtype=torch.long), boxes.new_zeros(count, most, 4), boxes.new_zeros(count, most))
    for index in range(count):
        own = (image == index).nonzero().reshape(-1)
        found.labels[index, : len(own)] = batch["cls"].reshape(-1)[own].long()
        found.corners[index, : len(own)] = boxes[own]
        found.mask[index, : len(own)] = 1
    return found


def pixels(preds: Any, spec: Any) -> list[float]:
    """Returns the factors of centres, sizes and corners that make pixels of shares."""
    height, width = image_size(preds, spec)
    return [width, height, width, height]


def answer(spec: Any, preds: Any, terms: Sequence[Any]) -> Answer:
    """Returns the box, classification and third term, each with its gain, in the form of the suite."""
    items = torch.stack([torch.as_tensor(term).reshape(()) for term in terms])
    items = items if items.dtype == torch.float64 else items.float()
    names = ("box_loss", "cls_loss", "l1_loss" if spec.reg_max == 1 else "dfl_loss")
    return items * len(preds["boxes"]), dict(zip(names, items.detach(), strict=True))


def lacks(spec: Any, *, bins: bool = True, distances: bool = True) -> str | None:
    """Returns why a library without a second cut and class weights cannot be told a definition.

    Args:
        spec: the definition.
        bins: whether it has heads with a distribution.
        distances: whether it has heads without one.
    """
    if spec.topk2 is not None and spec.topk2 != spec.topk:
        return "it has no second cut"
    if spec.class_weights is not None:
        return "it has no class weights"
    if spec.reg_max == 1 and not distances:
        return "it has no head without distribution"
    return "it has no distribution" if spec.reg_max > 1 and not bins else None


def fixed(spec: Any, **values: Any) -> str | None:
    """Returns why a library with fixed numbers cannot be told a definition."""
    different = {name: value for name, value in values.items() if getattr(spec, name) != value}
    return next((f"it has {name} = {value} alone" for name, value in different.items()), None)


def too_few_for_boxes(spec: Any, inputs: Any) -> str | None:
    """Returns why a library that picks exactly K anchors, where there are boxes, cannot take a batch."""
    return too_few(spec, inputs) if len(inputs.batch["bboxes"]) else None


def too_few(spec: Any, inputs: Any) -> str | None:
    """Returns why a library that picks exactly K anchors, of any batch, cannot take one."""
    return f"it needs K = {spec.topk} anchors" if inputs.preds["boxes"].shape[2] < spec.topk else None
