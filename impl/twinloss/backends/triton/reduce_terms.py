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
    held_4P: tl.tensor,
    held_count: tl.tensor,
    images: tl.tensor,
    gains: tl.tuple,
    loss: tl.tensor,
    items: tl.tensor,
    TILE: tl.constexpr,
) -> None:
    """Store in ``loss`` the three terms times gain and B, and in ``items`` the three terms without B, then S."""
    box_gain, cls_gain, dfl_gain = gains
    total_weight = fixed_order_sum(held_4P, held_count, TILE)
    box = fixed_order_sum(held_4P + held_count, held_count, TILE)
    dfl = fixed_order_sum(held_4P + 2 * held_count, held_count, TILE)
    correction = fixed_order_sum(held_4P + 3 * held_count, held_count, TILE)
    classification = fixed_order_sum(softplus_P, softplus_count, TILE) - correction
    # A maximum could drop NaN, which the loss must show.
    normaliser = tl.where(total_weight < 1, 1.0, total_weight)
    box = (box / normaliser * box_gain).to(tl.float32)
    classification = (classification / normaliser * cls_gain).to(tl.float32)
    dfl = (dfl / normaliser * dfl_gain).to(tl.float32)
    tl.store(items, box)
    tl.store(items + 1, classification)
    tl.store(items + 2, dfl)
    tl.store(items + 3, normaliser.to(tl.float32))
    tl.store(loss, box * images)
    tl.store(loss + 1, classification * images)
    tl.store(loss + 2, dfl * images)


def reduce_terms(arguments: KernelArguments, softplus_P: Tensor, held_4P: Tensor, loss: Tensor, items: Tensor) -> None:
    """Fill ``loss`` (3,) and ``items`` (4,): the three logged terms and S."""
    launch(
        arguments.kernels,
        reduce_terms_kernel,
        1,
        tiles.REDUCE_TERMS.warps,
        softplus_P,
        softplus_P.shape[0],
        held_4P,
        held_4P.shape[1],
        arguments.images,
        arguments.gains,
        loss,
        items,
        TILE=tiles.REDUCE_TERMS.size,
    )
