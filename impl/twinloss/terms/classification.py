"""The classification term: the one pass over every logit, forward and backward (spec section 7).

Against targets that are zero but at a few held anchors, binary cross-entropy is Σ softplus(x) − Σ t·x, the second sum over the held
anchors alone, and its gradient sigmoid(x) − t. So no target tensor is ever made. The logits are read where they lie, block by block, each
block small enough to stay in a core's cache through the dozen elementwise steps that it takes.

Shape suffixes: B images, C classes, A anchors, H held anchors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from twinloss.backends.saved_tensors import save, saved

BLOCK = 1 << 20
"""Logits per block: with its scratch it fits a processor's last cache, and is worth waking its cores for."""

SHARED = 16
"""Logits that share one logarithm. Π(1 + e^−|x|) over them is at most 2^16, far from overflow."""


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

    Returns:
        A scalar in the working dtype, to be divided by S, the sum of weights.
    """
    result: Tensor = _Classification.apply(scores, (image, label, anchor), weight, class_weights)
    return result


class _Classification(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, held: tuple[Tensor, Tensor, Tensor], weight: Tensor, class_weights: Tensor | None) -> Tensor:
        image, label, anchor = held
        weighted = {} if class_weights is None else {"class_weights": class_weights}
        save(ctx, scores=scores, image=image, label=label, anchor=anchor, weight=weight, **weighted)
        dtype = working_dtype(scores)
        softplus_BC = softplus_sums(scores)
        correction = scores[held].to(dtype) * weight
        if class_weights is not None:
            softplus_BC = softplus_BC * class_weights
            correction = correction * class_weights[held[1]]
        return (softplus_BC.sum(dtype=torch.float64) - correction.sum(dtype=torch.float64)).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        scores, image, label, anchor, weight, *class_weights = saved(ctx)
        factor_C = gradient * class_weights[0] if class_weights else gradient.expand(scores.shape[1])
        dense = scaled_sigmoid(scores, factor_C.to(weight.dtype))
        held = (image, label, anchor)
        at_held = (scores[held].to(weight.dtype).sigmoid() - weight) * factor_C[label]
        dense[held] = at_held.to(dense.dtype)
        return dense, None, None, None


def softplus_sums(scores: Tensor) -> Tensor:
    """Σ over anchors of softplus(x) = max(x, 0) + log(1 + e^−|x|), as (B, C) in the working dtype."""
    dtype = working_dtype(scores)
    anchors = scores.shape[-1]
    padded = -(-anchors // SHARED) * SHARED
    sums = scores.new_empty(scores.shape[:2], dtype=dtype)
    scratch = scores.new_empty(2, _rows_per_block(scores) * padded, dtype=dtype)
    for where, block in _blocks(scores):
        rows = sums[where]
        first, second = scratch[:, : rows.numel() * padded].view(2, *rows.shape, padded)
        logits = block if block.dtype == dtype else first[..., :anchors].copy_(block)
        positive = torch.clamp(logits, min=0, out=second[..., :anchors]).sum(-1)
        torch.copysign(logits, -1, out=first[..., :anchors])  # −|x|
        first[..., anchors:] = -torch.inf  # the padding's factor, 1 + 0, changes no product
        share = first.sigmoid_()
        torch.add(_log_products(share, second).sum(-1), positive, out=rows)
    return sums


def _log_products(share: Tensor, scratch: Tensor) -> Tensor:
    """Log Π (1 + e) over groups of ``SHARED`` along the last axis, given s = e / (1 + e) of each; overwrites both arguments.

    A product is kept as what it exceeds 1 by: (1 + a)(1 + b) − 1 = a + b + ab loses nothing where e is far below the rounding of 1.
    The first step is done on s, as 1 − (1 − a)(1 − b): a quotient on half of the elements then gives e without a second exponential.
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


def scaled_sigmoid(scores: Tensor, factor_C: Tensor) -> Tensor:
    """sigmoid(x) times the factor of its class, in the layout and dtype of the logits, computed in the working dtype."""
    dense = torch.empty_like(scores)
    same_dtype = dense.dtype == working_dtype(scores)
    for where, block in _blocks(scores):
        factor = factor_C[where[1], None]
        if same_dtype:
            torch.sigmoid(block, out=dense[where]).mul_(factor)
        else:
            dense[where] = block.to(working_dtype(scores)).sigmoid_().mul_(factor)
    return dense


def _rows_per_block(scores: Tensor) -> int:
    images, classes, anchors = scores.shape
    return max(1, min(BLOCK // max(1, anchors), images * classes))


def _blocks(scores: Tensor) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """Views of whole rows of anchors, of several images where these are small, of some classes of one image where they are not."""
    images, classes, _ = scores.shape
    rows = _rows_per_block(scores)
    image_step, class_step = max(1, rows // classes), min(rows, classes)
    for image in range(0, images, image_step):
        for label in range(0, classes, class_step):
            where = (slice(image, image + image_step), slice(label, label + class_step))
            yield where, scores[where]
