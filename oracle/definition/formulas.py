"""Formulas of the definition in float64; numbers in brackets are sections of the specification.

:mod:`oracle.definition.criterion` combines them. Nothing here is shared with the implementation under test.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from twinloss import LossSpec


def lengthened(corners: Tensor, shortest_side: float, below: float | None = None) -> Tensor:
    """[5.1] Boxes (M, 4) whose sides shorter than ``shortest_side`` are lengthened to it about the centre, in the dtype of the corners.

    Older definitions lengthen other sides to it: those shorter than ``below``.
    Every box is converted to centre and size and back, also one without a short side, which fixes the last bit of each side.
    """
    x1, y1, x2, y2 = corners.unbind(1)
    cx, cy, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    w, h = (side.where(side >= (shortest_side if below is None else below), side.new_tensor(shortest_side)) for side in (w, h))
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], dim=1)


def border_distance(corners: Tensor, centres: Tensor) -> Tensor:
    """[5.1] Smallest of the four distances (M, A) in pixels from centres (A, 2) to the sides of boxes (M, 4)."""
    x1, y1, x2, y2 = corners[:, :, None].unbind(1)
    x, y = centres.unbind(1)
    return torch.stack([x - x1, y - y1, x2 - x, y2 - y]).amin(0)


def distances(logits: Tensor, reg_max: int) -> Tensor:
    """[4] Left, top, right, bottom (..., 4) in grid units from logits (..., 4R); with R = 1 they are the logits themselves [7]."""
    if reg_max == 1:
        return logits
    bins = torch.arange(reg_max, dtype=torch.float64, device=logits.device)
    distribution: Tensor = logits.unflatten(-1, (4, reg_max)).softmax(-1)
    return (distribution * bins).sum(-1)


def corners_of(sides: Tensor, centres: Tensor) -> Tensor:
    """[4] Box (a_x - l, a_y - t, a_x + r, a_y + b)."""
    return torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], dim=-1)


def ciou(a: Tensor, b: Tensor, eps: float) -> Tensor:
    """[6] CIoU (n,) of boxes a and b (n, 4); half of a gradient goes to each side of a tie between two coordinates [8]."""
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    aw, ah, bw, bh = ax2 - ax1, ay2 - ay1 + eps, bx2 - bx1, by2 - by1 + eps
    intersection = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0) * (
        torch.minimum(ay2, by2) - torch.maximum(ay1, by1)
    ).clamp(min=0)
    iou = intersection / (aw * ah + bw * bh - intersection + eps)
    enclosing_w = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    enclosing_h = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    diagonal = enclosing_w**2 + enclosing_h**2 + eps
    centre_distance = ((bx1 + bx2 - ax1 - ax2) ** 2 + (by1 + by2 - ay1 - ay2) ** 2) / 4
    v = 4 / math.pi**2 * (torch.atan(bw / bh) - torch.atan(aw / ah)) ** 2
    alpha = (v / (1 - iou + v + eps)).detach()
    return iou - (centre_distance / diagonal + alpha * v)


def distribution_term(logits: Tensor, target: Tensor, spec: LossSpec) -> Tensor:
    """[7] Cross-entropy with the two bins around each clamped target distance, mean over the four sides (n,)."""
    clamped = target.clamp(0, spec.reg_max - 1 - spec.clamp_margin)
    lower = clamped.floor()
    nll: Tensor = -logits.unflatten(-1, (4, spec.reg_max)).log_softmax(-1)
    at_lower = nll.gather(-1, lower.long()[..., None])[..., 0]
    at_upper = nll.gather(-1, lower.long()[..., None] + 1)[..., 0]
    return (at_lower * (lower + 1 - clamped) + at_upper * (clamped - lower)).mean(-1)


def distance_term(predicted: Tensor, target: Tensor, strides: Tensor, image_size: tuple[int, int]) -> Tensor:
    """[7] R = 1: L1 between distances in pixels, divided by the image's width or height, mean over the four sides (n,)."""
    height, width = image_size
    size = torch.tensor([width, height, width, height], dtype=torch.float64, device=target.device)
    return ((predicted - target).abs() * strides[:, None] / size).mean(-1)


def classification_sum(scores: Tensor, image: Tensor, label: Tensor, anchor: Tensor, weight: Tensor, spec: LossSpec) -> Tensor:
    """[7], [13] Sum over all B, C, A of BCE-with-logits, times the class's weight; a score of -inf contributes its limit, 0 [10]."""
    entropy = -logsigmoid(-scores)
    held = scores[image, label, anchor]
    entropy[image, label, anchor] = -(weight * logsigmoid(held) + (1 - weight) * logsigmoid(-held))
    factors = torch.tensor(spec.class_weights or (1.0,) * spec.num_classes, dtype=torch.float64, device=scores.device)
    return (entropy.sum(dim=(0, 2)) * factors).sum()
