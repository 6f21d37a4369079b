"""The terms that the held anchors alone have a share in, each usable alone on a given assignment (spec section 7).

Each returns the sum over its elements as a scalar in float32 (float64 for float64 logits); dividing by S, the sum of weights, is the caller's.
Shape suffixes: H held anchors, B images, C classes, A anchors, R bins.
"""

from __future__ import annotations

import torch
from torch import Tensor

from twinloss.boxes import ciou, corners_from_distances, distances_from_corners, expected_distances


def box_term(logits_H4R: Tensor, centres: Tensor, corners: Tensor, weight: Tensor, eps: float = 1e-7) -> Tensor:
    """Sum of (1 - CIoU) · t.

    Args:
        logits_H4R: (H, 4, R) box logits of the held anchors.
        centres: (H, 2) in grid units.
        corners: (H, 4) ground truth in grid units.
        weight: (H,) t.
        eps: ε_c.
    """
    predicted = corners_from_distances(centres, expected_distances(logits_H4R))
    return ((1 - ciou(predicted, corners, eps)) * weight).sum()


def distribution_term(logits_H4R: Tensor, centres: Tensor, corners: Tensor, weight: Tensor, clamp_margin: float = 0.01) -> Tensor:
    """Distribution focal loss: mean over the four sides, times t, summed (Li et al. 2020, arXiv 2006.04388).

    Args:
        logits_H4R: (H, 4, R), R > 1.
        centres: (H, 2) in grid units.
        corners: (H, 4) ground truth in grid units.
        weight: (H,) t.
        clamp_margin: distances are clamped to [0, R - 1 - clamp_margin].
    """
    bins = logits_H4R.shape[-1]
    distance = distances_from_corners(centres, corners).clamp(0, bins - 1 - clamp_margin)
    lower = distance.floor()
    upper_share = distance - lower
    log_p = logits_H4R.log_softmax(-1)
    index = lower.to(torch.int64).unsqueeze(-1)
    at_lower, at_upper = log_p.gather(-1, index).squeeze(-1), log_p.gather(-1, index + 1).squeeze(-1)
    return -((at_lower * (1 - upper_share) + at_upper * upper_share).mean(-1) * weight).sum()


def distance_term(
    distances: Tensor, centres: Tensor, corners: Tensor, strides: Tensor, weight: Tensor, image_size: tuple[int, int]
) -> Tensor:
    """L1 between distances as shares of the image, for heads without a distribution (R = 1): mean over the four sides, times t, summed.

    Args:
        distances: (H, 4) predictions in grid units.
        centres: (H, 2) in grid units.
        corners: (H, 4) ground truth in grid units.
        strides: (H,) pixels.
        weight: (H,) t.
        image_size: (H, W) in pixels.
    """
    height, width = image_size
    extent = distances.new_tensor([width, height, width, height])
    target = distances_from_corners(centres, corners)
    per_side = (distances * strides[:, None] / extent - target * strides[:, None] / extent).abs()
    return (per_side.mean(-1) * weight).sum()
