"""Gathers the columns of a few anchors out of (B, channels, A) logits, and scatters their gradient.

Shape suffixes: B images, A anchors, n anchors to gather, b of them in one image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from twinloss.backends.saved_tensors import differentiated_once, save, saved

FEW = 1 << 16
"""Numbers that are gathered at once; for more, an operation for each image, which reads along its rows of channels, is faster."""


def columns_by_image(logits: Tensor, image_n: Tensor, anchor_n: Tensor) -> Iterator[Tensor]:
    """Columns (b, channels) of the anchors of each image that has any, in turn; if there are few, of all images at once.

    Args:
        logits: (B, channels, A).
        image_n: image of each anchor, ascending.
        anchor_n: index of each anchor within its image.
    """
    if len(image_n) * logits.shape[1] <= FEW:
        if len(image_n):
            yield logits[image_n, :, anchor_n]
        return
    counts = torch.bincount(image_n, minlength=len(logits)).tolist()
    for rows, anchor_b in zip(logits, anchor_n.split(counts), strict=True):
        if len(anchor_b):
            yield rows.index_select(1, anchor_b).T.contiguous()


def held_columns(logits: Tensor, image: Tensor, anchor: Tensor) -> Tensor:
    """Columns (n, channels) of anchors (n,), sorted by image, each held once, out of (B, channels, A); differentiable.

    Each anchor occurs once, so the gradient is stored, not accumulated. It is dense, and zero at anchors that are not held.
    """
    columns: Tensor = _HeldColumns.apply(logits, image, anchor)
    return columns


class _HeldColumns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, image: Tensor, anchor: Tensor) -> Tensor:
        save(ctx, image=image, anchor=anchor)
        ctx.of_logits = {"size": logits.shape, "dtype": logits.dtype, "device": logits.device}
        return torch.cat([logits.new_empty(0, logits.shape[1]), *columns_by_image(logits, image, anchor)])

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        image, anchor = saved(ctx)
        dense = torch.zeros(**ctx.of_logits)
        dense[image, :, anchor] = gradient
        return dense, None, None
