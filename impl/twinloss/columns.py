"""Reading and writing the columns of a few anchors in (B, channels, A) logits, whose channels lie A elements apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def gather_columns(logits: Tensor, image: Tensor, anchor: Tensor) -> Tensor:
    """Columns (channels, n) of anchors (n,), sorted by image, out of (B, channels, A); not differentiable.

    On a CPU one image at a time, so that each channel is read along its row.
    """
    if logits.is_cuda or not len(anchor):
        return logits[image, :, anchor].T
    counts = torch.bincount(image, minlength=len(logits)).tolist()
    per_image = zip(logits, anchor.split(counts), strict=True)
    return torch.cat([rows.index_select(1, columns) for rows, columns in per_image if len(columns)], dim=1)


def held_columns(logits: Tensor, image: Tensor, anchor: Tensor) -> Tensor:
    """Columns (n, channels) of anchors (n,), each held once, out of (B, channels, A); differentiable.

    Since no anchor comes twice, the gradient is written, not added up. It is dense, and zero where nothing is held.
    """
    columns: Tensor = _HeldColumns.apply(logits, image, anchor)
    return columns


class _HeldColumns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, image: Tensor, anchor: Tensor) -> Tensor:
        ctx.save_for_backward(image, anchor)
        ctx.like = logits.detach()  # shape, layout and dtype of the gradient; the values are not read
        return logits[image, :, anchor]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        image, anchor = ctx.saved_tensors
        dense = torch.zeros_like(ctx.like)
        dense[image, :, anchor] = gradient
        return dense, None, None
