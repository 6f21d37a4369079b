"""Upright boxes as corners: from targets and from logits, the anchors inside them, and the CIoU of two (spec sections 3 to 6).

Shape suffixes: N rows of the batch, n boxes, A anchors, B images, L levels, R bins per side, 2 coordinates (x, y), 4 sides (left, top,
right, bottom) or corners (x1, y1, x2, y2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.geometry.base import Windows
from twinloss.spec import LossSpec


def pixel_corners(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Pixel corners (N, 4) of boxes (N, 4) given as centre and size, each divided by the image's width or height (spec section 3)."""
    height, width = image_size
    pixels_N4 = boxes * boxes.new_tensor([width, height, width, height])
    centre_N2, half_N2 = pixels_N4[:, :2], pixels_N4[:, 2:] / 2
    return torch.cat([centre_N2 - half_N2, centre_N2 + half_N2], dim=-1)


def lengthen(corners: Tensor, below: float, shortest_side: float) -> Tensor:
    """Corners (n, 4) with every side shorter than ``below`` pixels lengthened to ``shortest_side`` about the centre (spec section 5.1)."""
    low_n2, high_n2 = corners[:, :2], corners[:, 2:]
    centre_n2, size_n2 = (low_n2 + high_n2) / 2, high_n2 - low_n2
    half_n2 = torch.where(size_n2 < below, torch.full_like(size_n2, shortest_side), size_n2) / 2
    return torch.cat([centre_n2 - half_n2, centre_n2 + half_n2], dim=-1)


def windows(corners: Tensor, pyramid: Pyramid, spec: LossSpec) -> Windows:
    """Windows of the anchors whose centres lie strictly inside each box, lengthened where it is short (spec section 5.1).

    Args:
        corners: (n, 4) ground truth in pixels.
        pyramid: the grids.
        spec: the length below which sides are lengthened, the length that they get, and ε_a.
    """
    return windows_within(lengthen(corners, spec.lengthened_below, spec.shortest_side), pyramid, spec.assign_eps)


def windows_within(corners: Tensor, pyramid: Pyramid, eps: float) -> Windows:
    """Windows of the anchors whose centres lie inside the corners (n, 4) by more than ``eps`` pixels."""
    low_n12, high_n12 = corners.unsqueeze(1).split(2, dim=-1)
    stride_L1 = corners.new_tensor(pyramid.strides).unsqueeze(-1)
    size_L2 = corners.new_tensor(pyramid.grids).flip(-1)  # (columns, rows)
    zero_L2 = torch.zeros_like(size_L2)
    first_nL2 = (low_n12 / stride_L1 - 0.5).floor().clamp(zero_L2, size_L2)
    last_nL2 = (high_n12 / stride_L1 - 0.5).ceil().clamp(zero_L2 - 1, size_L2 - 1)
    # Rounding the quotient can be wrong by a cell, so the definition's own test decides at both ends; two steps correct more than that.
    for _ in range(2):
        first_nL2 = torch.where((first_nL2 + 0.5) * stride_L1 - low_n12 > eps, first_nL2, first_nL2 + 1)
        last_nL2 = torch.where(high_n12 - (last_nL2 + 0.5) * stride_L1 > eps, last_nL2, last_nL2 - 1)
    return Windows(first_nL2.to(torch.int64), (last_nL2 - first_nL2 + 1).clamp(min=0).to(torch.int64))


def expected_distances(logits: Tensor) -> Tensor:
    """Distances (...) in grid units: the expectation of the bin index under the softmax over the R logits (..., R) (spec section 4).

    With a single bin the logits are the distances themselves (spec section 7, R = 1).
    """
    return logits.squeeze(-1) if logits.shape[-1] == 1 else expectation(logits.softmax(-1))


def expectation(distribution: Tensor) -> Tensor:
    """Mean bin index (...) of distributions (..., R)."""
    bins_R = torch.arange(distribution.shape[-1], dtype=distribution.dtype, device=distribution.device)
    # A product with a vector rounds as the reference's does, so that metrics that tie there tie here. It is not used if the user allowed
    # matrix products in less than float32.
    if torch.get_float32_matmul_precision() == "highest":
        return distribution @ bins_R
    return (distribution * bins_R).sum(-1)


def corners_from_distances(centres: Tensor, distances: Tensor, dim: int = -1) -> Tensor:
    """Corners at the four given distances from the centres (two coordinates), both along ``dim``, in the same units (spec section 4)."""
    left_top, right_bottom = distances.chunk(2, dim)
    return torch.cat([centres - left_top, centres + right_bottom], dim)


def distances_from_corners(centres: Tensor, corners: Tensor) -> Tensor:
    """Distances (..., 4) from the centres (..., 2) to the sides of boxes (..., 4), all in the same units (spec section 7)."""
    return torch.cat([centres - corners[..., :2], corners[..., 2:] - centres], dim=-1)


def decode_boxes(logits: Tensor, centres: Tensor, reg_max: int) -> Tensor:
    """Predicted corners of every anchor (spec section 4).

    Args:
        logits: (B, 4R, A), channel = side·R + bin.
        centres: (A, 2) in grid units.
        reg_max: R.

    Returns:
        Corners (B, A, 4) in grid units of each anchor's level, in the dtype of the logits.

    Example:
        One anchor at (2.5, 2.5) whose logits choose, of R = 3 bins, bin 1 to the left and top and bin 2 to the right and bottom:

        >>> logits = torch.full((1, 12, 1), -100.0)
        >>> logits[0, [1, 4, 8, 11]] = 100.0  # channel = side · 3 + bin
        >>> decode_boxes(logits, torch.tensor([[2.5, 2.5]]), reg_max=3).tolist()
        [[[1.5, 1.5, 4.5, 4.5]]]
    """
    images, _, anchors = logits.shape
    logits_BA4R = logits.reshape(images, 4, reg_max, anchors).permute(0, 3, 1, 2)
    return corners_from_distances(centres.to(logits.dtype), expected_distances(logits_BA4R))


def ciou(first: Tensor, second: Tensor, eps: float = 1e-7) -> Tensor:
    """Complete IoU of paired boxes (spec section 6; Zheng et al. 2019, arXiv 1911.08287).

    Args:
        first: corners (..., 4); the definition is not symmetric in rounding, so order matters to the last bit.
        second: corners (..., 4), same units.
        eps: the definition's ε_c.

    Returns:
        (...), at most 1. The trade-off α_c is a constant for differentiation. Boxes that touch have the gradient of boxes that are apart.

    Example:
        A box and itself shifted by half of its side: IoU = 2 / 6, and the centres are 1 apart in a hull of 2 x 3, so that the CIoU is
        1/3 − 1 / 13.

        >>> box = torch.tensor([0.0, 0.0, 2.0, 2.0])
        >>> round(ciou(box, box + torch.tensor([1.0, 0.0, 1.0, 0.0])).item(), 4)
        0.2564
    """
    ax1, ay1, ax2, ay2 = first.unbind(-1)
    bx1, by1, bx2, by2 = second.unbind(-1)
    aw, ah = ax2 - ax1, ay2 - ay1 + eps
    bw, bh = bx2 - bx1, by2 - by1 + eps
    # Where sides touch, clamp passes the gradient in some releases of torch (2.11) and not in others (2.15); relu never does.
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).relu()
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).relu()
    intersection = width * height
    iou = intersection / (aw * ah + bw * bh - intersection + eps)
    hull_w = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    hull_h = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    diagonal = hull_w.square() + hull_h.square() + eps
    distance = ((bx1 + bx2 - ax1 - ax2).square() + (by1 + by2 - ay1 - ay2).square()) / 4
    aspect = (4 / math.pi**2) * ((bw / bh).atan() - (aw / ah).atan()).square()
    trade_off = (aspect / (1 - iou + aspect + eps)).detach()
    return iou - (distance / diagonal + trade_off * aspect)
