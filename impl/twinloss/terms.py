"""The terms of the loss, each usable alone on a given assignment (spec section 7).

Each returns the sum over its elements as a scalar in float32 (float64 for float64 logits); dividing by S, the sum of weights, is the caller's.
Shape suffixes: H held anchors, B images, C classes, A anchors, R bins.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from twinloss.boxes import ciou, corners_from_distances, distances_from_corners, expected_distances


def working_dtype(logits: Tensor) -> torch.dtype:
    """Dtype of the arithmetic: float64 for float64 logits, float32 for all others (spec section 8a)."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def classification_term(
    scores: Tensor, image: Tensor, label: Tensor, anchor: Tensor, weight: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Sum of binary cross-entropy with logits over all of (B, C, A), against targets that are zero but at the held anchors.

    Args:
        scores: (B, C, A) logits, in any memory layout.
        image: (H,) image of each held anchor.
        label: (H,) class of its box.
        anchor: (H,) its column.
        weight: (H,) its soft target t.
        class_weights: (C,) factors, or ``None`` (spec section 13).
    """
    result: Tensor = _Classification.apply(scores, (image, label, anchor), weight, class_weights)
    return result


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


def held_logits(boxes: Tensor, image: Tensor, anchor: Tensor, reg_max: int) -> Tensor:
    """Box logits (H, 4, R) of the held anchors, in the working dtype, out of (B, 4R, A).

    An anchor is held once, so the gradient is written, not added up: it is dense, and zero where nothing is held.
    """
    gathered: Tensor = _GatherAnchors.apply(boxes, image, anchor)
    return gathered.view(len(anchor), 4, reg_max)


class _GatherAnchors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, boxes: Tensor, image: Tensor, anchor: Tensor) -> Tensor:
        ctx.save_for_backward(image, anchor)
        ctx.like = boxes  # type: ignore[attr-defined]  # the shape, layout and dtype of the gradient; the values are not read
        return boxes[image, :, anchor].to(working_dtype(boxes))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        image, anchor = ctx.saved_tensors  # type: ignore[attr-defined]
        dense = torch.zeros_like(ctx.like)  # type: ignore[attr-defined]
        dense[image, :, anchor] = gradient.to(dense.dtype)
        return dense, None, None


class _Classification(torch.autograd.Function):
    """Σ softplus(x) − Σ t·x over the held anchors; gradient sigmoid(x) − t. The targets never become dense."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, scores: Tensor, held: tuple[Tensor, Tensor, Tensor], weight: Tensor, class_weights: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(scores, *held, weight, class_weights)
        dtype = working_dtype(scores)
        per_image = scores.new_empty(len(scores), dtype=dtype)
        # One image at a time keeps the scratch at a share of the logits.
        for index, image_scores in enumerate(scores):
            losses = torch.nn.functional.softplus(image_scores.to(dtype), threshold=40)
            per_image[index] = (losses.sum(-1) * class_weights).sum() if class_weights is not None else losses.sum()
        correction = scores[held].to(dtype) * weight
        if class_weights is not None:
            correction = correction * class_weights[held[1]]
        return per_image.sum() - correction.sum()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        scores, image, label, anchor, weight, class_weights = ctx.saved_tensors  # type: ignore[attr-defined]
        factor = gradient if class_weights is None else gradient * class_weights
        held = (image, label, anchor)
        at_held = (scores[held].to(weight.dtype).sigmoid() - weight) * (factor if class_weights is None else factor[label])
        dense = torch.empty_like(scores)
        for index, image_scores in enumerate(scores):
            share = image_scores.to(weight.dtype).sigmoid()
            dense[index] = share * (factor if class_weights is None else factor[:, None])
        dense[held] = at_held.to(dense.dtype)
        return dense, None, None, None
