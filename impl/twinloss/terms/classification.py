"""Classification term: one pass over all class logits, forward and backward (spec section 7).

The targets are zero except at a few held anchors. Binary cross-entropy is therefore Σ softplus(x) − Σ t·x, with the second sum over the
held anchors alone, and its gradient sigmoid(x) − t. No target tensor is made. The logits are read in place, block by block; a block fits
a core's cache through a dozen elementwise steps.

Shape suffixes: B images, C classes, A anchors, H held anchors; b and c images and classes of one block; Q anchors with padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from twinloss.backends.saved_tensors import differentiated_once, save, saved

BLOCK = 1 << 20
"""Logits per block: with its scratch it fits a processor's last cache, and is large enough to use several cores."""

SHARED = 16
"""Logits that share one logarithm. Π(1 + e^−|x|) over them is at most 2^16, far from overflow."""


def working_dtype(logits: Tensor) -> torch.dtype:
    """Dtype of the arithmetic: float64 for float64 logits, float32 for all others (spec section 8a)."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def classification_term(
    scores: Tensor, image: Tensor, label: Tensor, anchor: Tensor, weight: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Sum of binary cross-entropy with logits over all of (B, C, A), with targets that are zero except at the held anchors.

    Args:
        scores: (B, C, A) logits, in any memory layout.
        image: (H,) image of each held anchor.
        label: (H,) class of its box.
        anchor: (H,) its index within the image.
        weight: (H,) its soft target t.
        class_weights: (C,) factors, or ``None`` (spec section 13).

    Returns:
        A scalar in the working dtype; the caller divides by S, the sum of weights.
    """
    result: Tensor = _Classification.apply(scores, (image, label, anchor), weight, class_weights)
    return result


class _Classification(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores_BCA: Tensor, held: tuple[Tensor, Tensor, Tensor], weight_H: Tensor, class_weights_C: Tensor | None
    ) -> Tensor:
        image_H, label_H, anchor_H = held
        weighted = {} if class_weights_C is None else {"class_weights": class_weights_C}
        save(ctx, scores=scores_BCA, image=image_H, label=label_H, anchor=anchor_H, weight=weight_H, **weighted)
        dtype = working_dtype(scores_BCA)
        softplus_BC = softplus_sums(scores_BCA)
        correction_H = scores_BCA[held].to(dtype) * weight_H
        if class_weights_C is not None:
            softplus_BC = softplus_BC * class_weights_C
            correction_H = correction_H * class_weights_C[held[1]]
        return (softplus_BC.sum(dtype=torch.float64) - correction_H.sum(dtype=torch.float64)).to(dtype)

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        scores_BCA, image_H, label_H, anchor_H, weight_H, *class_weights = saved(ctx)
        factor_C = gradient * class_weights[0] if class_weights else gradient.expand(scores_BCA.shape[1])
        dense_BCA = scaled_sigmoid(scores_BCA, factor_C.to(weight_H.dtype))
        held = (image_H, label_H, anchor_H)
        at_held_H = (scores_BCA[held].to(weight_H.dtype).sigmoid() - weight_H) * factor_C[label_H]
        dense_BCA[held] = at_held_H.to(dense_BCA.dtype)
        return dense_BCA, None, None, None


def softplus_sums(scores_BCA: Tensor) -> Tensor:
    """Σ over anchors of softplus(x) = max(x, 0) + log(1 + e^−|x|), as (B, C) in the working dtype."""
    dtype = working_dtype(scores_BCA)
    anchors = scores_BCA.shape[-1]
    padded = -(-anchors // SHARED) * SHARED
    sums_BC = scores_BCA.new_empty(scores_BCA.shape[:2], dtype=dtype)
    scratch = scores_BCA.new_empty(2, _rows_per_block(scores_BCA) * padded, dtype=dtype)
    for where, block_bcA in _blocks(scores_BCA):
        rows_bc = sums_BC[where]
        first_bcQ, second_bcQ = scratch[:, : rows_bc.numel() * padded].view(2, *rows_bc.shape, padded)
        logits_bcA = block_bcA if block_bcA.dtype == dtype else first_bcQ[..., :anchors].copy_(block_bcA)
        positive_bc = torch.clamp(logits_bcA, min=0, out=second_bcQ[..., :anchors]).sum(-1)
        torch.copysign(logits_bcA, -1, out=first_bcQ[..., :anchors])  # −|x|
        first_bcQ[..., anchors:] = -torch.inf  # the padding's factor, 1 + 0, changes no product
        share_bcQ = first_bcQ.sigmoid_()
        torch.add(_log_products(share_bcQ, second_bcQ).sum(-1), positive_bc, out=rows_bc)
    return sums_BC


def _log_products(share: Tensor, scratch: Tensor) -> Tensor:
    """Log Π (1 + e) over groups of ``SHARED`` along the last axis, given s = e / (1 + e) of each; overwrites both arguments.

    A product is stored minus 1: (1 + a)(1 + b) − 1 = a + b + ab loses nothing if e is far below the rounding unit of 1. The first step is
    1 − (1 − a)(1 − b) of s: a quotient of half of the elements then gives e without a second exponential.
    """
    left, right = share.chunk(2, -1)
    width = left.shape[-1]
    joint = torch.addcmul(right, left, right, value=-1, out=scratch[..., :width]).add_(left)
    excess = torch.div(joint, torch.sub(1, joint, out=left), out=left)
    spare = joint
    for _ in range(SHARED.bit_length() - 2):
        left, right = excess.chunk(2, -1)
        width //= 2
        excess, spare = torch.addcmul(right, left, right, out=spare[..., :width]).add_(left), excess
    return excess.log1p_()


def scaled_sigmoid(scores_BCA: Tensor, factor_C: Tensor) -> Tensor:
    """sigmoid(x) times the factor of its class, in the layout and dtype of the logits, computed in the working dtype."""
    dense_BCA = torch.empty_like(scores_BCA)
    same_dtype = dense_BCA.dtype == working_dtype(scores_BCA)
    for where, block_bcA in _blocks(scores_BCA):
        factor_c1 = factor_C[where[1], None]
        if same_dtype:
            torch.sigmoid(block_bcA, out=dense_BCA[where]).mul_(factor_c1)
        else:
            dense_BCA[where] = block_bcA.to(working_dtype(scores_BCA)).sigmoid_().mul_(factor_c1)
    return dense_BCA


def _rows_per_block(scores_BCA: Tensor) -> int:
    images, classes, anchors = scores_BCA.shape
    return max(1, min(BLOCK // max(1, anchors), images * classes))


def _blocks(scores_BCA: Tensor) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """Views of whole rows of anchors: all classes of several images if images are small, else some classes of one image."""
    images, classes, _ = scores_BCA.shape
    rows = _rows_per_block(scores_BCA)
    image_step, class_step = max(1, rows // classes), min(rows, classes)
    for image in range(0, images, image_step):
        for label in range(0, classes, class_step):
            where = (slice(image, image + image_step), slice(label, label + class_step))
            yield where, scores_BCA[where]
