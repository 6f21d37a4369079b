"""Kernel: adds the partial sums in a fixed order and in float64, and normalises them to the loss (spec section 7)."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import KernelArguments
from twinloss.backends.triton.launch import launch


@triton.jit
def fixed_order_sum(values: tl.tensor, count: tl.tensor, TILE: tl.constexpr) -> tl.tensor:
    """Sum of ``count`` numbers in float64, always in the same order."""
    total = tl.zeros((TILE,), tl.float64)
    for start in range(0, count, TILE):
        index = start + tl.arange(0, TILE)
        total += tl.load(values + index, mask=index < count, other=0.0).to(tl.float64)
    return tl.sum(total, axis=0)


@triton.jit(do_not_specialize=["images", "softplus_count", "held_count"])
def reduce_terms_kernel(
    softplus_P: tl.tensor,
    softplus_count: tl.tensor,
    held_P: tl.tensor,
    held_count: tl.tensor,
    images: tl.tensor,
    gains: tl.tuple,
    loss: tl.tensor,
    items: tl.tensor,
    TILE: tl.constexpr,
    ORIENTED: tl.constexpr,
) -> None:
    """Store in ``loss`` the terms times gain and B, and in ``items`` the terms without B, then S."""
    total_weight = fixed_order_sum(held_P, held_count, TILE)
    box = fixed_order_sum(held_P + held_count, held_count, TILE)
    dfl = fixed_order_sum(held_P + 2 * held_count, held_count, TILE)
    correction = fixed_order_sum(held_P + 3 * held_count, held_count, TILE)
    classification = fixed_order_sum(softplus_P, softplus_count, TILE) - correction
    # A maximum could drop NaN, which the loss must show.
    normaliser = tl.where(total_weight < 1, 1.0, total_weight)
    box = (box / normaliser * gains[0]).to(tl.float32)
    classification = (classification / normaliser * gains[1]).to(tl.float32)
    dfl = (dfl / normaliser * gains[2]).to(tl.float32)
    tl.store(items, box)
    tl.store(items + 1, classification)
    tl.store(items + 2, dfl)
    if ORIENTED:
        turn = (fixed_order_sum(held_P + 4 * held_count, held_count, TILE) / normaliser * gains[3]).to(tl.float32)
        tl.store(items + 3, turn)
        tl.store(loss + 3, turn * images)
    tl.store(items + 3 + ORIENTED, normaliser.to(tl.float32))
    tl.store(loss, box * images)
    tl.store(loss + 1, classification * images)
    tl.store(loss + 2, dfl * images)


def reduce_terms(arguments: KernelArguments, softplus_P: Tensor, held: Tensor, loss: Tensor, items: Tensor) -> None:
    """Fill ``loss`` (T,) and ``items`` (T + 1,): the T logged terms and S."""
    launch(
        arguments.kernels,
        reduce_terms_kernel,
        1,
        tiles.REDUCE_TERMS.warps,
        softplus_P,
        softplus_P.shape[0],
        held,
        held.shape[1],
        arguments.images,
        arguments.gains,
        loss,
        items,
        TILE=tiles.REDUCE_TERMS.size,
        ORIENTED=arguments.oriented,
    )
