"""Formulas of oriented boxes in float64; numbers in brackets are sections of the specification of the oriented loss.

A box (..., 5) is centre x, y, sides w, h and angle θ in radians; side w lies along (cos θ, sin θ), side h along (-sin θ, cos θ) [0].
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

LARGEST_DISTANCE = 100.0  # [6] Upper clamp of the Bhattacharyya distance.
SIDE_EPS = 1e-9  # [7] Added to both sides in the angle term's weight.


def offsets(boxes: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """[4] ξ and η (...): the box's centre minus the anchor's (..., 2), along the box's sides w and h."""
    x, y, _, _, angle = boxes.unbind(-1)
    dx, dy = x - centres[..., 0], y - centres[..., 1]
    return dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()


def border_distance(boxes: Tensor, centres: Tensor) -> Tensor:
    """[5.1] Smallest of w/2 - |ξ| and h/2 - |η| (M, A) of boxes (M, 5) and centres (A, 2): 0 on a border, positive inside."""
    across, down = offsets(boxes[:, None], centres)
    return torch.minimum(boxes[:, 2, None] / 2 - across.abs(), boxes[:, 3, None] / 2 - down.abs())


def lengthened_sides(boxes: Tensor, shortest_side: float, below: float) -> Tensor:
    """[5.1] Boxes (M, 5) whose sides shorter than ``below`` are ``shortest_side`` long, in the direction that they have."""
    sides = boxes[:, 2:4]
    return torch.cat([boxes[:, :2], sides.where(sides >= below, shortest_side), boxes[:, 4:]], dim=1)


def decoded_boxes(sides: Tensor, angle: Tensor, centres: Tensor) -> Tensor:
    """[4] Boxes (..., 5) from distances left, top, right, bottom (..., 4), angles (...) and anchors' centres (..., 2), in grid units."""
    left, top, right, bottom = sides.unbind(-1)
    across, down = (right - left) / 2, (bottom - top) / 2
    x = centres[..., 0] + across * angle.cos() - down * angle.sin()
    y = centres[..., 1] + across * angle.sin() + down * angle.cos()
    return torch.stack([x, y, left + right, top + bottom, angle], dim=-1)


def side_distances(boxes: Tensor, centres: Tensor) -> Tensor:
    """[4] Distances left, top, right, bottom (n, 4) from centres (n, 2) to the sides of boxes (n, 5), in the boxes' own frames."""
    across, down = offsets(boxes, centres)
    w, h = boxes[:, 2], boxes[:, 3]
    return torch.stack([w / 2 - across, h / 2 - down, w / 2 + across, h / 2 + down], dim=1)


class Spreads(NamedTuple):
    """[6] What the Bhattacharyya distance of two boxes depends on (each (...)).

    Attributes:
        apart: 4 (E + ε) (β₁ + β₂), the numerator of the centres' part.
        e, d1, d2: the determinants E, D₁ and D₂.
    """

    apart: Tensor
    e: Tensor
    d1: Tensor
    d2: Tensor


def spreads(a: Tensor, b: Tensor, floor: float) -> Spreads:
    """[6] Determinants and distance of the centres of boxes a and b (..., 5).

    They are sums of positive terms, without differences of large numbers, and so precise for long boxes too. With u, v the variances along
    a box's sides and ξ, η the difference of the centres along them, ``apart`` is Σ v ξ² + u η² over both boxes; the determinants are as
    at the end of section 6.
    """
    (u1, v1), (u2, v2) = (variances(box, floor) for box in (a, b))
    turn = a[..., 4] - b[..., 4]
    d1, d2 = u1 * v1, u2 * v2
    e = d1 + d2 + (u1 * v2 + v1 * u2) * turn.cos() ** 2 + (u1 * u2 + v1 * v2) * turn.sin() ** 2
    (across1, down1), (across2, down2) = offsets(a, b[..., :2]), offsets(b, a[..., :2])
    return Spreads(v1 * across1**2 + u1 * down1**2 + v2 * across2**2 + u2 * down2**2, e, d1, d2)


def variances(boxes: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """[6] u and v (...): the variances of boxes (..., 5) along their sides w and h."""
    u, v = (boxes[..., 2:4] ** 2 / 12 + floor).unbind(-1)
    return u, v


def bhattacharyya(spreads: Spreads, eps: float) -> Tensor:
    """[6] β₁ + β₂ + β₃ (...), before the clamp."""
    apart, e, d1, d2 = spreads
    return apart / (4 * (e + eps)) + torch.log(e / (4 * (d1.clamp(min=0) * d2.clamp(min=0)).sqrt() + eps) + eps) / 2


def probiou(a: Tensor, b: Tensor, floor: float, eps: float) -> Tensor:
    """[6] ProbIoU (...) of boxes a and b (..., 5); the clamp passes no gradient outside of its range [8]."""
    return 1 - (1 - torch.exp(-bhattacharyya(spreads(a, b, floor), eps).clamp(eps, LARGEST_DISTANCE)) + eps).sqrt()


def angle_weight(boxes: Tensor, scale: float) -> Tensor:
    """[7] ω (n,) of boxes (n, 5): 1 for a square, less the longer the box is."""
    ratio = torch.log((boxes[:, 2] + SIDE_EPS) / (boxes[:, 3] + SIDE_EPS))
    return torch.exp(-(ratio**2) / scale**2)


def angle_term(predicted: Tensor, boxes: Tensor, scale: float) -> Tensor:
    """[7] ω sin²(2 (θ̂ - θ)) (n,) of predicted angles (n,) and boxes (n, 5)."""
    return angle_weight(boxes, scale) * torch.sin(2 * (predicted - boxes[:, 4])) ** 2


def largest_overlap(eps: float) -> float:
    """[5.2] The ProbIoU of two equal boxes."""
    return 1 - math.sqrt(1 - math.exp(-eps) + eps)
