"""Reading and writing the columns of a few anchors in (B, channels, A) logits, whose channels lie A elements apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from twinloss.backends.saved_tensors import save, saved


def columns_by_image(logits: Tensor, image: Tensor, anchor: Tensor) -> Iterator[Tensor]:
    """Columns (n_b, channels) of the anchors of each image in turn that has any, read along the rows of channels.

    Args:
        logits: (B, channels, A).
        image: (n,) ascending.
        anchor: (n,).
    """
    counts = torch.bincount(image, minlength=len(logits)).tolist()
    for rows, columns in zip(logits, anchor.split(counts), strict=True):
        if len(columns):
            yield rows.index_select(1, columns).T.contiguous()


def held_columns(logits: Tensor, image: Tensor, anchor: Tensor) -> Tensor:
    """Columns (n, channels) of anchors (n,), sorted by image, each held once, out of (B, channels, A); differentiable.

    Since no anchor comes twice, the gradient is written, not added up. It is dense, and zero where nothing is held.
    """
    columns: Tensor = _HeldColumns.apply(logits, image, anchor)
    return columns


class _HeldColumns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, image: Tensor, anchor: Tensor) -> Tensor:
        save(ctx, image=image, anchor=anchor)
        ctx.like = torch.empty_like(logits, device="meta")  # shape, layout and dtype of the gradient; no value is kept
        ctx.device = logits.device
        return torch.cat([logits.new_empty(0, logits.shape[1]), *columns_by_image(logits, image, anchor)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        image, anchor = saved(ctx)
        dense = torch.zeros_like(ctx.like, device=ctx.device)
        dense[image, :, anchor] = gradient
        return dense, None, None
