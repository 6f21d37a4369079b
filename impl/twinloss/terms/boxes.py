"""The terms that the held anchors alone have a share in, each usable alone on a given assignment (spec section 7).

Each returns the sum over its elements as a scalar in float32 (float64 for float64 logits); dividing by S, the sum of weights, is the
caller's.
Shape suffixes: H held anchors, B images, C classes, A anchors, R bins.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from twinloss.backends.saved_tensors import save, saved
from twinloss.geometry.upright import ciou, corners_from_distances, distances_from_corners, expectation


def distributions(logits_H4R: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """What the held anchors' distributions say, with one softmax and one gradient for both.

    Args:
        logits_H4R: (H, 4, R) box logits, R > 1.
        target: (H, 4) distances in grid units, in [0, R - 1).

    Returns:
        Expected distances (H, 4) in grid units (spec section 4), and the cross-entropy (H, 4) with the two bins around the target, each
        weighted by how near the target is (spec section 7; Li et al. 2020, arXiv 2006.04388).
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
    height, width = image_size
    extent = distances.new_tensor([width, height, width, height])
    target = distances_from_corners(centres, corners)
    per_side = (distances * strides[:, None] / extent - target * strides[:, None] / extent).abs()
    return (per_side.mean(-1) * weight).sum()


class _Distributions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        share = logits.softmax(-1)
        expected = expectation(share)
        lower = target.floor()
        upper_share = target - lower
        index = lower.to(torch.int64).unsqueeze(-1)
        largest = logits.amax(-1)
        at_lower, at_upper = (logits.gather(-1, k).squeeze(-1) - largest for k in (index, index + 1))
        save(ctx, share=share, expected=expected, index=index, upper_share=upper_share)
        # The largest share is e^0 over the sum of exponentials, so its logarithm gives log-softmax, finite also where a share underflows.
        return expected, -(share.amax(-1).log() + torch.lerp(at_lower, at_upper, upper_share))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_expected: Tensor, to_entropy: Tensor) -> tuple[Tensor, None]:
        share, expected, index, upper_share = saved(ctx)
        bins = torch.arange(share.shape[-1], dtype=share.dtype, device=share.device)
        # d expected / d logit_k = share_k (k − expected), d entropy / d logit_k = share_k − (weight of bin k)
        from_expected = bins - expected.unsqueeze(-1)  # before the product: it is small where the distribution is sharp
        gradient = torch.addcmul(to_entropy.unsqueeze(-1), from_expected, to_expected.unsqueeze(-1)).mul_(share)
        upper = (to_entropy * upper_share).unsqueeze(-1)
        gradient.scatter_add_(-1, index, upper - to_entropy.unsqueeze(-1)).scatter_add_(-1, index + 1, -upper)
        return gradient, None
