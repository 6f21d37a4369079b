"""The sum over all class logits in the classification term: Σ w_c · softplus(x) (spec sections 7 and 13)."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton.arithmetic import log1p


@triton.jit
def logit_tile(
    tile: tl.tensor,
    block: tl.tensor,
    image_stride: tl.tensor,
    anchors: tl.tensor,
    classes: tl.tensor,
    BLOCKS: tl.constexpr,
    TILE: tl.constexpr,
) -> tl.tuple:
    """Offset of a tile of class logits in the scores and in a contiguous gradient, number of logits left in its block, and its class.

    A block is a run of logits without a gap that share one factor: the "batch", an "image" if there are gaps between images, or a "class"
    of an image if classes have weights. The class is 0 if a block has several.
    """
    if BLOCKS == "batch":
        # The offset depends on the tile's number alone, so that the compiler knows its alignment.
        start = tile.to(tl.int64) * TILE
        source = start
        target = start
        label = 0
    else:
        per_block = tl.cdiv(block, TILE)
        index = tile // per_block
        start = (tile % per_block).to(tl.int64) * TILE
        target = index.to(tl.int64) * block + start
        if BLOCKS == "image":
            source = index.to(tl.int64) * image_stride + start
            label = 0
        else:
            image = (index // classes).to(tl.int64)
            label = index % classes
            source = image * image_stride + label.to(tl.int64) * anchors + start
    return source, target, block - start, label


@triton.jit
def softplus_sum(
    tile: tl.tensor,
    scores: tl.tensor,
    block: tl.tensor,
    image_stride: tl.tensor,
    anchors: tl.tensor,
    classes: tl.tensor,
    class_weights: tl.tensor,
    BLOCKS: tl.constexpr,
    GROUP: tl.constexpr,
    TILE: tl.constexpr,
) -> tl.tensor:
    """Sum over one tile of logits.

    softplus(x) = max(x, 0) + log(1 + e^−|x|). GROUP neighbours share one logarithm: that of Π(1 + e_i), kept as the product minus one, so
    that the small e_i of confident logits do not vanish.
    """
    source, _, remaining, label = logit_tile(tile, block, image_stride, anchors, classes, BLOCKS, TILE)
    lane = tl.arange(0, TILE)
    x = tl.load(scores + source + lane, mask=lane < remaining, other=float("-inf")).to(tl.float32)
    linear = tl.maximum(x, 0.0)  # drops NaN, which e carries on
    e = tl.exp(-tl.abs(x))
    if GROUP == 8:
        a, b = tl.split(tl.reshape(e, (TILE // 8, 2, 2, 2)))
        a, b = tl.split(tl.fma(a, b, a + b))
    else:
        a, b = tl.split(tl.reshape(e, (TILE // 4, 2, 2)))
    a, b = tl.split(tl.fma(a, b, a + b))
    total = tl.sum(linear, axis=0) + tl.sum(log1p(tl.fma(a, b, a + b)), axis=0)
    if BLOCKS == "class":
        total *= tl.load(class_weights + label)
    return total


def score_blocks(scores: Tensor, weighted: bool) -> tuple[str, int, int]:
    """Kind of the blocks of :func:`logit_tile` that the scores (B, C, A) have, their number, and the logits in each."""
    images, classes, anchors = scores.shape
    if weighted:
        return "class", images * classes, anchors
    return ("batch", 1, scores.numel()) if scores.is_contiguous() else ("image", images, classes * anchors)
