"""The part of the classification term that every logit has: Σ w_c · softplus(x) (spec sections 7 and 13)."""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.triton.arithmetic import log1p


@triton.jit
def logit_tile(tile: tl.tensor, block: tl.tensor, GAPS: tl.constexpr, TILE: tl.constexpr) -> tl.tuple:
    """Block that a tile of logits lies in, and where in it the tile begins.

    ``block`` logits lie side by side: all of them, or one image's where there are GAPS between images.
    """
    if GAPS:
        per_block = tl.cdiv(block, TILE)
        index = (tile // per_block).to(tl.int64)
        start = (tile % per_block).to(tl.int64) * TILE
    else:
        # A constant, so that the compiler knows the tile's alignment.
        index = tl.zeros((), tl.int64)
        start = tile.to(tl.int64) * TILE
    return index, start


@triton.jit
def class_of(start: tl.tensor, TILE: tl.constexpr, anchors: tl.tensor, classes: tl.tensor) -> tl.tensor:
    """Class of each of TILE logits from offset ``start`` on in a block of whole images."""
    # Only the tile's start may exceed 32 bits; the lanes' own division stays cheap.
    first = start // anchors
    step = ((start - first * anchors).to(tl.int32) + tl.arange(0, TILE)) // anchors
    return ((first % classes).to(tl.int32) + step) % classes


@triton.jit
def softplus_sum(
    tile: tl.tensor,
    scores: tl.tensor,
    block: tl.tensor,
    image_stride: tl.tensor,
    anchors: tl.tensor,
    classes: tl.tensor,
    class_weights: tl.tensor,
    GAPS: tl.constexpr,
    WEIGHTED: tl.constexpr,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
) -> tl.tensor:
    """Sum over one tile of logits.

    softplus(x) = max(x, 0) + log(1 + e^−|x|). Without class weights, GROUP neighbours share one logarithm: that of Π(1 + e_i), kept as the
    product minus one, so that the small e_i of confident logits do not vanish.
    """
    index, start = logit_tile(tile, block, GAPS, TILE)
    lane = tl.arange(0, TILE)
    x = tl.load(scores + index * image_stride + start + lane, mask=lane < block - start, other=float("-inf")).to(tl.float32)
    linear = tl.maximum(x, 0.0)  # NaN is 0 here, and shows in e
    e = tl.exp(-tl.abs(x))
    if WEIGHTED:
        result = tl.sum((linear + log1p(e)) * tl.load(class_weights + class_of(start, TILE, anchors, classes)), axis=0)
    else:
        if GROUP == 8:
            a, b = tl.split(tl.reshape(e, (TILE // 8, 2, 2, 2)))
            a, b = tl.split(tl.fma(a, b, a + b))
        else:
            a, b = tl.split(tl.reshape(e, (TILE // 4, 2, 2)))
        a, b = tl.split(tl.fma(a, b, a + b))
        result = tl.sum(linear, axis=0) + tl.sum(log1p(tl.fma(a, b, a + b)), axis=0)
    return result
