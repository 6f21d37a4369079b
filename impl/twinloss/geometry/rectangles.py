"""Oriented boxes: centre x, y, sides w, h, and angle in radians; side w lies along (cos θ, sin θ), y pointing down (oriented spec 0 to 5).

Shape suffixes: N rows of the batch, n boxes, A anchors, B images, R bins per side, P pairs; 2 is (x, y), 5 columns of a box, 4 sides
(left, top, right, bottom, in the box's frame).
"""

from __future__ import annotations

import torch
from torch import Tensor

from twinloss.geometry.corners import expected_distances

SMALLEST_SIDE = 2
"""Pixels; a row with a shorter side is removed from the batch (oriented spec section 3)."""


def pixel_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Boxes (N, 5) in pixels, of boxes with x and w divided by the image's width, y and h by its height (oriented spec section 3)."""
    height, width = image_size
    return boxes * boxes.new_tensor([width, height, width, height, 1])


def counts(boxes_in_pixels: Tensor) -> Tensor:
    """Which boxes (N, 5) in pixels are valid ground truth (N,): no side is tiny, and the five numbers add up to more than 0 (section 3)."""
    return sides_suffice(boxes_in_pixels) & (boxes_in_pixels.sum(-1) > 0)


def sides_suffice(boxes_in_pixels: Tensor) -> Tensor:
    """Of which boxes (N, 5) in pixels no side is tiny (N,)."""
    return (boxes_in_pixels[:, 2:4] >= SMALLEST_SIDE).all(-1)


def in_frame(offset: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Offset (..., 2) along side w, ξ, and along side h, η, of boxes with angles (...) (oriented spec section 4)."""
    dx, dy = offset.unbind(-1)
    sin, cos = angle.sin(), angle.cos()
    return dx * cos + dy * sin, dy * cos - dx * sin


def lengthen(sides: Tensor, below: float, shortest_side: float) -> Tensor:
    """Sides (n, 2), those shorter than ``below`` pixels replaced by ``shortest_side``; each keeps its direction (section 5.1)."""
    return torch.where(sides < below, torch.full_like(sides, shortest_side), sides)


def enclosing_corners(boxes: Tensor) -> Tensor:
    """Corners (n, 4) of the upright rectangles that enclose oriented boxes (n, 5)."""
    centre_n2, (width, height, angle) = boxes[:, :2], boxes[:, 2:].unbind(-1)
    sin, cos = angle.sin().abs(), angle.cos().abs()
    half_n2 = torch.stack([width * cos + height * sin, width * sin + height * cos], dim=-1) / 2
    return torch.cat([centre_n2 - half_n2, centre_n2 + half_n2], dim=-1)


def inside(boxes: Tensor, points: Tensor) -> Tensor:
    """Whether points (P, 2) lie in paired boxes (P, 5), borders included (oriented spec section 5.1)."""
    xi, eta = in_frame(boxes[:, :2] - points, boxes[:, 4])
    return (xi.abs() <= boxes[:, 2] / 2) & (eta.abs() <= boxes[:, 3] / 2)


def boxes_from_distances(centres: Tensor, distances: Tensor, angle: Tensor, dim: int = -1) -> Tensor:
    """Boxes at the four given distances from the centres, both along ``dim``, in the same units (oriented spec section 4).

    The angle (one number along ``dim``) turns the offset of the box's centre, not the sides.
    """
    left, top, right, bottom = distances.unbind(dim)
    x, y = centres.unbind(dim)
    angle = angle.squeeze(dim)
    along, across, sin, cos = (right - left) / 2, (bottom - top) / 2, angle.sin(), angle.cos()
    box = [x + along * cos - across * sin, y + along * sin + across * cos, left + right, top + bottom, angle]
    return torch.stack(torch.broadcast_tensors(*box), dim=dim)


def distances_from_boxes(centres: Tensor, boxes: Tensor) -> Tensor:
    """Distances (..., 4) from the centres (..., 2) to the sides of boxes (..., 5), in the boxes' own frames (oriented spec section 4)."""
    xi, eta = in_frame(boxes[..., :2] - centres, boxes[..., 4])
    half_width, half_height = boxes[..., 2] / 2, boxes[..., 3] / 2
    return torch.stack([half_width - xi, half_height - eta, half_width + xi, half_height + eta], dim=-1)


def decode_oriented_boxes(logits: Tensor, angle: Tensor, centres: Tensor, reg_max: int) -> Tensor:
    """Predicted boxes of every anchor (oriented spec section 4).

    Args:
        logits: (B, 4R, A), channel = side·R + bin.
        angle: (B, 1, A) radians, taken as it is.
        centres: (A, 2) in grid units.
        reg_max: R.

    Returns:
        Boxes (B, A, 5) in grid units of each anchor's level, in the dtype of the logits.
    """
    images, _, anchors = logits.shape
    logits_BA4R = logits.reshape(images, 4, reg_max, anchors).permute(0, 3, 1, 2)
    angle_BA1 = angle.permute(0, 2, 1).to(logits.dtype)
    return boxes_from_distances(centres.to(logits.dtype), expected_distances(logits_BA4R), angle_BA1)
