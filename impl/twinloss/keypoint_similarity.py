"""Keypoint similarity of candidate pairs, and the levels on which a box has candidates (pose spec section 4, second generation).

The similarity is a mean of exponentials, and the alignment metric its sixth power: where the predicted keypoints are still far off, both
lie below float32, and the metric below float64. Their logarithms do not, so that the ranking by them is that of exact arithmetic in every
dtype.

Shape suffixes: n boxes, L levels, P candidate pairs, k keypoints; 2 coordinates (x, y).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from twinloss.terms.keypoints import EPS

LEAST_SIDE, MOST_SIDE = 2, 12
"""A box fits a level when √(w · h) is between these multiples of its stride, both included."""

AREA_SHARE = 0.53
"""Part of a box's area that COCO's similarity takes for the object's."""


def fits_level(area: Tensor, strides: Sequence[int]) -> Tensor:
    """Whether boxes of the areas (n,), in square pixels, fit the levels, as (n, L) bool; small boxes fit the finest, large the coarsest.

    >>> fits_level(torch.tensor([15.0, 40.0, 100.0]) ** 2, (8, 16, 32)).tolist()  # 100 > 12 · 8
    [[True, False, False], [True, True, False], [False, True, True]]
    """
    side_n1 = area.clamp(min=0).sqrt().unsqueeze(1)
    stride_L = torch.tensor(strides, dtype=side_n1.dtype, device=side_n1.device)
    large_enough_nL = (side_n1 >= LEAST_SIDE * stride_L) | (stride_L == min(strides))
    return large_enough_nL & ((side_n1 <= MOST_SIDE * stride_L) | (stride_L == max(strides)))


def squared_errors(difference: Tensor, strides: Tensor, area: Tensor, doubled: Tensor) -> Tensor:
    """Squared distance (P, k) of predicted and true keypoint in pixels, relative to 8σ_k² · (0.53 · area + ε_k).

    Args:
        difference: (P, k, 2) in grid units.
        strides: (P,) pixels.
        area: (P,) of the true boxes, in square pixels.
        doubled: (k,) 8σ_k².
    """
    squared_Pk = difference.square().sum(-1) * strides.to(difference.dtype).square().unsqueeze(1)
    return squared_Pk / ((AREA_SHARE * area.to(difference.dtype) + EPS).unsqueeze(1) * doubled.to(difference.dtype))


def log_similarity(squared_errors: Tensor, visible: Tensor) -> Tensor:
    """Logarithm (P,) of the mean of exp(−squared error) over the visible keypoints (P, k); −inf where none is.

    >>> log_similarity(torch.tensor([[0.0, 5000.0, 3.0], [5000.0, 5000.0, 3.0]]), torch.tensor([[True, True, False]] * 2)).tolist()
    [-0.6931471824645996, -5000.0]
    """
    exponent_Pk = torch.where(visible, -squared_errors, -torch.inf)
    return exponent_Pk.logsumexp(-1) - visible.sum(-1).to(exponent_Pk.dtype).clamp(min=1).log()


def similarity(squared_errors: Tensor, visible: Tensor) -> Tensor:
    """Mean (P,) of exp(−squared error) over the visible keypoints (P, k), which may underflow; 0 where none is."""
    share_Pk = torch.where(visible, (-squared_errors).exp(), 0)
    return share_Pk.sum(-1) / visible.sum(-1).to(share_Pk.dtype).clamp(min=1)
