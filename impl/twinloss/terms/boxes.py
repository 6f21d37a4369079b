"""Terms over the held anchors: box, distribution and distance, each usable alone on a given assignment (spec section 7).

Each returns the sum over its elements as a scalar in float32 (float64 for float64 logits); the caller divides by S, the sum of weights.

Shape suffixes: H held anchors, R bins per side, 4 sides; 2 bins around a target.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from twinloss.backends.saved_tensors import differentiated_once, save, saved
from twinloss.geometry.corners import ciou, corners_from_distances, distances_from_corners, expectation


def distributions(logits_H4R: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Expected distances and cross-entropy of the held anchors' distributions, with one softmax and one gradient for both.

    Args:
        logits_H4R: (H, 4, R) box logits, R > 1.
        target: (H, 4) distances in grid units, in [0, R - 1).

    Returns:
        Expected distances (H, 4) in grid units (spec section 4), and the cross-entropy (H, 4) with the two bins around the target, each
        weighted linearly by its closeness to the target (spec section 7; Li et al. 2020, arXiv 2006.04388).
    """
    expected, cross_entropy = _Distributions.apply(logits_H4R, target)
    return expected, cross_entropy


def clamped_target(centres: Tensor, corners: Tensor, bins: int, clamp_margin: float = 0.01) -> Tensor:
    """Distances (H, 4) to the ground truth's sides in grid units, clamped to [0, R - 1 - clamp_margin] (spec section 7)."""
    return distances_from_corners(centres, corners).clamp(0, bins - 1 - clamp_margin)


def box_term(distances: Tensor, centres: Tensor, corners: Tensor, weight: Tensor, eps: float = 1e-7) -> Tensor:
    """Sum of (1 - CIoU) · t.

    Args:
        distances: (H, 4) predicted, in grid units.
        centres: (H, 2) in grid units.
        corners: (H, 4) ground truth in grid units.
        weight: (H,) t.
        eps: ε_c.
    """
    return ((1 - ciou(corners_from_distances(centres, distances), corners, eps)) * weight).sum()


def distribution_term(cross_entropy: Tensor, weight: Tensor) -> Tensor:
    """Distribution focal loss: mean over the four sides of the cross-entropy (H, 4), times t (H,), summed."""
    return (cross_entropy.mean(-1) * weight).sum()


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
    return difference_term(distances, distances_from_corners(centres, corners), strides, weight, image_size)


def difference_term(distances: Tensor, target: Tensor, strides: Tensor, weight: Tensor, image_size: tuple[int, int]) -> Tensor:
    """The distance term on target distances (H, 4) in grid units; its other arguments are those of :func:`distance_term`."""
    height, width = image_size
    extent_4 = distances.new_tensor([width, height, width, height])
    per_side_H4 = (distances * strides[:, None] / extent_4 - target * strides[:, None] / extent_4).abs()
    return (per_side_H4.mean(-1) * weight).sum()


class _Distributions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_H4R: Tensor, target_H4: Tensor) -> tuple[Tensor, Tensor]:
        share_H4R = logits_H4R.softmax(-1)
        expected_H4 = expectation(share_H4R)
        lower_H4 = target_H4.floor()
        upper_share_H4 = target_H4 - lower_H4
        index_H41 = lower_H4.to(torch.int64).unsqueeze(-1)
        largest_H4 = logits_H4R.amax(-1)
        at_lower_H4, at_upper_H4 = (logits_H4R.gather(-1, k).squeeze(-1) - largest_H4 for k in (index_H41, index_H41 + 1))
        save(ctx, share=share_H4R, expected=expected_H4, index=index_H41, upper_share=upper_share_H4)
        # The largest share is 1 over the sum of exponentials, so its logarithm gives log-softmax, finite even if another share underflows.
        return expected_H4, -(share_H4R.amax(-1).log() + torch.lerp(at_lower_H4, at_upper_H4, upper_share_H4))

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, to_expected_H4: Tensor, to_entropy_H4: Tensor) -> tuple[Tensor, None]:
        share_H4R, expected_H4, index_H41, upper_share_H4 = saved(ctx)
        bins_R = torch.arange(share_H4R.shape[-1], dtype=share_H4R.dtype, device=share_H4R.device)
        # d expected / d logit_k = share_k (k − expected), d entropy / d logit_k = share_k − (weight of bin k)
        from_expected_H4R = bins_R - expected_H4.unsqueeze(-1)  # before the product: it is small where the distribution is sharp
        gradient_H4R = torch.addcmul(to_entropy_H4.unsqueeze(-1), from_expected_H4R, to_expected_H4.unsqueeze(-1)).mul_(share_H4R)
        upper_H41 = (to_entropy_H4 * upper_share_H4).unsqueeze(-1)
        gradient_H4R.scatter_add_(-1, index_H41, upper_H41 - to_entropy_H4.unsqueeze(-1)).scatter_add_(-1, index_H41 + 1, -upper_H41)
        return gradient_H4R, None
