"""Formulas of the pose terms in float64; numbers in brackets are sections of the specification of the pose loss.

:mod:`oracle.definition.pose` combines them. Nothing here is shared with the implementation under test.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

EPSILON = 1e-9  # [0] ε_k
AREA_SHARE = 0.53  # [4] of a box's area that stands for the object's, in the similarity alone
LARGEST_ERROR = 100.0  # [6] to which normalised errors are clamped

COCO = (0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89)
"""[4] Ten times the constants of COCO's keypoints."""
COCO_WEIGHTS = (1.0,) * 7 + (1.2, 1.2, 1.5, 1.5, 1.0, 1.0, 1.2, 1.2, 1.5, 1.5)
"""[6] Weights of COCO's keypoints in the likelihood term."""


def squared_constants(sigmas: tuple[float, ...] | None, keypoint_shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """[4] 8σ_k² (n,): twice the float32 square of 2σ_k; 1/n alone is kept in ``dtype``, the default dtype of the run."""
    if sigmas is not None:
        constants = torch.tensor(sigmas, dtype=torch.float32)
    elif keypoint_shape == (17, 3):
        constants = torch.tensor(COCO, dtype=torch.float32) / 10  # also the division is float32's
    else:
        constants = torch.ones(keypoint_shape[0], dtype=dtype) / keypoint_shape[0]
    return 2 * ((2 * constants) ** 2).double()


def likelihood_weights(keypoint_shape: tuple[int, int]) -> Tensor:
    """[6] ω_k (n,), float32 numbers; custom constants do not change them."""
    return torch.tensor(COCO_WEIGHTS if keypoint_shape == (17, 3) else (1.0,) * keypoint_shape[0], dtype=torch.float32).double()


def decoded_keypoints(raw: Tensor, centres: Tensor, generation: int) -> Tensor:
    """[3] Keypoints (..., n, 2) in grid units from raw numbers (..., n, E) of anchors with centres (..., 2)."""
    offset, centre = raw[..., :2], centres[..., None, :]
    return 2 * offset + centre - 0.5 if generation == 1 else offset + centre


def deviations(raw: Tensor, floor: float) -> Tensor:
    """[3] Predicted deviations ς: the sigmoid of the raw number, and no less than the smallest normal number of its dtype."""
    return raw.sigmoid().clamp(min=floor)


def large_enough(extent: Tensor, strides: Tensor) -> Tensor:
    """[4.1] Whether boxes whose area has the root (M,) in pixels are no smaller than levels with strides (A,) allow: (M, A) bool."""
    return (extent[:, None] >= 2 * strides) | (strides == strides.min())


def small_enough(extent: Tensor, strides: Tensor) -> Tensor:
    """[4.1] Whether they are no larger: (M, A) bool."""
    return (extent[:, None] <= 12 * strides) | (strides == strides.max())


def extents(corners: Tensor) -> Tensor:
    """[4.1] Roots g (M,) of the areas of boxes (M, 4), in pixels."""
    return areas(corners).clamp(min=0).sqrt()


def areas(corners: Tensor) -> Tensor:
    """[0] w·h (M,) of boxes (M, 4)."""
    return (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])


def log_similarity(predicted: Tensor, target: Tensor, visible: Tensor, area: Tensor, constants: Tensor) -> Tensor:
    """[4.2] Logarithm of the object keypoint similarity o (P,) of one box, with a visible keypoint, and its candidates, in pixels.

    Args:
        predicted: (P, n, 2) keypoints.
        target: (n, 2) keypoints.
        visible: (n,) bool.
        area: w·h of the box.
        constants: (n,) 8σ_k².
    """
    squared = (predicted - target).square().sum(-1)
    exponent = -squared / (constants * (AREA_SHARE * area + EPSILON))
    return exponent.where(visible, -torch.inf).logsumexp(1) - visible.double().sum().log()


def location_costs(predicted: Tensor, target: Tensor, visible: Tensor, area: Tensor, constants: Tensor) -> Tensor:
    """[6] What each held anchor (H,) adds to the location term, in grid units: without the factor of the area, and without its mean.

    An infinite prediction costs 1 and has no gradient, as in the limit; that of an invisible keypoint is not read [10].
    """
    distant = predicted.isinf().any(-1)
    squared = (predicted.where((visible & ~distant)[..., None], target) - target).square().sum(-1)
    error = squared / (constants * (area[:, None] + EPSILON))
    cost = torch.where(distant, 1.0, 1 - torch.exp(-error)).where(visible, 0.0)
    return cost.sum(1) / (visible.double().sum(1) + EPSILON)


def visibility_costs(logits: Tensor, visible: Tensor) -> Tensor:
    """[6] BCE-with-logits (H, n) of visibility logits; an infinite logit costs 0 or infinity, its limits [10]."""
    return -logsigmoid(logits.where(visible, -logits))


def normalised_errors(predicted: Tensor, target: Tensor, deviation: Tensor) -> Tensor:
    """[6] u (P, 2) of pairs of a held anchor and a visible keypoint, not yet clamped."""
    return (predicted - target) / (deviation + EPSILON)


def likelihood(deviation: Tensor, errors: Tensor, weight: Tensor, log_prob: Callable[[Tensor], Tensor]) -> Tensor:
    """[6] ℓ: the mean over P pairs of the residual log-likelihood; the flow's log-density is subtracted once per coordinate.

    Args:
        deviation: (P, 2) ς.
        errors: (P, 2) u.
        weight: (P,) ω of each pair's keypoint.
        log_prob: the flow.
    """
    clamped = errors.clamp(-LARGEST_ERROR, LARGEST_ERROR)
    density = log_prob(clamped)
    total = errors.new_zeros(())
    for coordinate in range(2):
        own = deviation[:, coordinate]
        total = total + (weight * (own.log() + (2 * own).log() + clamped[:, coordinate].abs() - density)).sum()
    return total / max(len(errors), 1)
