"""Boxes: from logits to distances to corners, and the CIoU of two boxes (spec sections 4 and 6).

Shape suffixes: n boxes, A anchors, B images, R bins per side, 2 coordinates (x, y), 4 sides (left, top, right, bottom) or corners
(x1, y1, x2, y2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
