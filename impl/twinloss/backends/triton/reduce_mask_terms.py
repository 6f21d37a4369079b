"""Kernel: adds the sums of the mask and of the semantic term in a fixed order and in float64 (segmentation spec sections 4 to 6)."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.launch import Kernels, launch
from twinloss.backends.triton.mask_arguments import MaskArguments
from twinloss.backends.triton.reduce_terms import fixed_order_sum


@triton.jit
def semantic_term(sums: tl.tensor, pairs: tl.tensor, pixels: tl.tensor, TILE: tl.constexpr) -> tl.tensor:
    """Half the mean cross-entropy and half the mean Dice loss, from the sums of all images and classes."""
    entropy = tl.zeros((TILE,), tl.float64)
    dice = tl.zeros((TILE,), tl.float64)
    for start in range(0, pairs, TILE):
        pair = start + tl.arange(0, TILE)
        there = pair < pairs
        common = tl.load(sums + pair * 3, mask=there, other=0.0)
        either = tl.load(sums + pair * 3 + 1, mask=there, other=0.0)
        entropy += tl.load(sums + pair * 3 + 2, mask=there, other=0.0)
        dice += (either - 2 * common) / (either + 1)
    count = pairs.to(tl.float64)
    return 0.5 * (tl.sum(entropy, axis=0) / (count * pixels) + tl.sum(dice, axis=0) / count)


@triton.jit(do_not_specialize=["partial_count", "images", "pairs", "pixels", "mask_gain", "semantic_gain"])
def reduce_mask_terms_kernel(
    partial: tl.tensor,
    partial_count: tl.tensor,
    sums: tl.tensor,
    pairs: tl.tensor,
    pixels: tl.tensor,
    first: tl.tensor,
    images: tl.tensor,
    mask_gain: tl.tensor,
    semantic_gain: tl.tensor,
    loss: tl.tensor,
    items: tl.tensor,
    SEMANTIC: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Store both terms in ``items``, and times B in ``loss``; the semantic term is 0 without its logits, and where nothing is held."""
    mask = (fixed_order_sum(partial, partial_count, TILE) * mask_gain).to(tl.float32)
    tl.store(items, mask)
    tl.store(loss, mask * images)
    if SEMANTIC:
        found = (semantic_term(sums, pairs, pixels, TILE) * semantic_gain).to(tl.float32)
        semantic = tl.where(tl.load(first + images) > 0, found, 0.0)
    else:
        semantic = 0.0
    tl.store(items + 1, semantic)
    tl.store(loss + 1, semantic * images)


def reduce_mask_terms(
    masks: MaskArguments,
    partial: Tensor,
    sums: Tensor,
    first: Tensor,
    gains: tuple[float, float],
    loss: Tensor,
    items: Tensor,
    kernels: Kernels,
) -> None:
    """Fill ``loss`` and ``items`` (2,): the mask term and the semantic term; ``sums`` is (B, C, 3), empty for no semantic term."""
    semantic = masks.semantic
    launch(
        kernels,
        reduce_mask_terms_kernel,
        1,
        tiles.REDUCE_TERMS.warps,
        partial,
        partial.shape[0],
        sums,
        sums.shape[0] * sums.shape[1],
        1 if semantic is None else semantic.shape[2] * semantic.shape[3],
        first,
        masks.prototypes.shape[0],
        *gains,
        loss,
        items,
        SEMANTIC=sums.numel() > 0,
        TILE=tiles.REDUCE_TERMS.size,
    )
