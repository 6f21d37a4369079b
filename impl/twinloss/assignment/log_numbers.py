"""Numbers from 0 to 1 whose logarithms are compared, because they or their products underflow.

A number x is kept as 1 / (1 − log x). That is positive, 0 for 0, and ascends with x, so that it ranks as x does; and it is as exact as the
logarithm itself.

Shape suffixes: P candidate pairs, H held anchors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from twinloss.spec import LossSpec


def kept(logarithm: Tensor) -> Tensor:
    """Numbers by their logarithms, which are at most 0 (or above by rounding), as they are kept.

    >>> kept(torch.tensor([0.0, -1.0, -3000.0, -torch.inf])).tolist()[::3]
    [1.0, 0.0]
    """
    return 1 / (1 - logarithm)


def logarithm(kept: Tensor) -> Tensor:
    """Logarithms of numbers that are kept.

    >>> logarithm(kept(torch.tensor([-0.5, -3000.0], dtype=torch.float64))).tolist()
    [-0.5, -3000.0]
    """
    return 1 - 1 / kept


def alignment_metric(score: Tensor, overlap: Tensor, spec: LossSpec) -> Tensor:
    """Alignment metric p^α · o^β (P,) of pairs, kept, from class logits and kept overlaps (spec section 5.3)."""
    factors = [
        exponent * number
        for exponent, number in (
            (spec.alpha, torch.nn.functional.logsigmoid(score.to(overlap.dtype))),
            (spec.beta, logarithm(overlap)),
        )
        if exponent
    ]
    return kept(sum(factors, torch.zeros_like(overlap)))


def soft_target(metric: Tensor, largest_metric: Tensor, largest_overlap: Tensor, eps: float) -> Tensor:
    """Soft targets m · O / (M + ε_a) (H,), plain, of kept numbers (spec section 5.7); they may underflow to 0."""
    logarithm_eps = torch.full_like(metric, math.log(eps) if eps else -torch.inf)
    divisor = torch.logaddexp(logarithm(largest_metric), logarithm_eps)
    return (logarithm(metric) + logarithm(largest_overlap) - divisor).exp()
