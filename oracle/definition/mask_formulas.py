"""Formulas of the instance-segmentation loss in float64; numbers in brackets are sections of its specification.

:mod:`oracle.definition.segmentation` combines them. Nothing here is shared with the implementation under test.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Size = tuple[int, int]  # rows and columns


def size_of(maps: Tensor) -> Size:
    """Returns rows and columns of maps (..., rows, columns)."""
    return maps.shape[-2], maps.shape[-1]


def nearest_inputs(length: int, new_length: int) -> Tensor:
    """[4] Index of the input that each output (new_length,) takes: the whole part of i · m / m′, the product in float32."""
    scale = np.float32(length) / np.float32(new_length)
    inputs = np.floor(np.arange(new_length, dtype=np.float32) * scale).astype(np.int64)
    return torch.from_numpy(np.minimum(inputs, length - 1))


def resized_nearest(maps: Tensor, size: Size) -> Tensor:
    """[4] Maps (..., rows, columns) at another size, by nearest."""
    rows, columns = (nearest_inputs(old, new).to(maps.device) for old, new in zip(maps.shape[-2:], size, strict=True))
    return maps[..., rows[:, None], columns]


def bilinear_inputs(length: int, new_length: int) -> tuple[Tensor, Tensor, Tensor]:
    """[4] For each output of an axis (new_length,): its first input k, its second min(k + 1, m - 1), and the share u - k of the second."""
    u = ((torch.arange(new_length, dtype=torch.float64) + 0.5) * length / new_length - 0.5).clamp(min=0)
    k = u.floor()
    return k.long(), (k.long() + 1).clamp(max=length - 1), u - k


def resized_bilinear(maps: Tensor, size: Size) -> Tensor:
    """[4] Maps (..., rows, columns) at another size, by bilinear interpolation of each axis in turn, without antialiasing."""
    for axis, length in zip((-2, -1), size, strict=True):
        first, second, share = (part.to(maps.device) for part in bilinear_inputs(maps.shape[axis], length))
        share = share[:, None] if axis == -2 else share
        maps = maps.index_select(axis, first) * (1 - share) + maps.index_select(axis, second) * share
    return maps


def inside_crop(corners: Tensor, size: Size) -> Tensor:
    """[4] Pixels (n, rows, columns) inside of boxes (n, 4) in mask units: x1 <= c < x2 and y1 <= r < y2 of the whole c and r."""
    x1, y1, x2, y2 = corners[:, :, None].unbind(1)
    rows, columns = (torch.arange(length, dtype=corners.dtype, device=corners.device) for length in size)
    return ((y1 <= rows) & (rows < y2))[:, :, None] & ((x1 <= columns) & (columns < x2))[:, None, :]


def rounded_borders(corners: Tensor, size: Size, *, wrap: bool) -> Tensor:
    """[13] Corners (n, 4) in mask units as older releases round them, half to even; ``wrap``: one below 0 counts from the far side."""
    whole, (rows, columns) = corners.round(), size
    return whole.where((whole >= 0) | (not wrap), whole + whole.new_tensor([columns, rows, columns, rows]))


def mask_iou(predicted: Tensor, true: Tensor) -> Tensor:
    """[3.4] |both| / max(|either|, 1) (n,) of masks (n, rows, columns)."""
    both, either = (predicted & true).sum((1, 2)), (predicted | true).sum((1, 2))
    return both.double() / either.clamp(min=1)


def entropy(logits: Tensor, target: Tensor) -> Tensor:
    """[4] BCE-with-logits, whose gradient is sigma(x) - y everywhere [8]; an infinite logit contributes its limit [10]."""
    of_ones, of_zeros = -logsigmoid(logits), -logsigmoid(-logits)
    mixed = target * of_ones + (1 - target) * of_zeros
    return torch.where(target == 0, of_zeros, torch.where(target == 1, of_ones, mixed))


def mask_loss(logits: Tensor, target: Tensor, pixels: int, area: Tensor) -> Tensor:
    """[4] Sums (k,) of the entropy over the n pixels inside a box's crop, divided by the number of all pixels, and by the box's area.

    Args:
        logits: (k, n), of the k anchors that the box holds and the pixels inside; the others are not read [11].
        target: (n,).
        pixels: h · w.
        area: the box's share of the image; for a box without area the loss is 0 [9].
    """
    return entropy(logits, target).sum(-1) / (pixels * area) if area > 0 else logits.sum(-1) * 0


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """[5] 1 - (2 sum of sigma·y + 1) / (sum of sigma + sum of y + 1) (B, C) of maps (B, C, rows, columns)."""
    share = logits.sigmoid()
    return 1 - (2 * (share * target).sum((2, 3)) + 1) / (share.sum((2, 3)) + target.sum((2, 3)) + 1)


def semantic_target(classes: Tensor, covered: Tensor, num_classes: int) -> Tensor:
    """[5] y (B, C, h, w): 1 at the class of each covered pixel (B, h, w), truncated toward zero, else 0."""
    k = torch.arange(num_classes, dtype=torch.float64, device=classes.device)[:, None, None]
    return ((classes.double().trunc()[:, None] == k) & covered[:, None]).double()
