"""Kernel: the sums of the semantic term over the pixels of each image and class (segmentation spec section 5).

A pixel has one class at most: the target is a map of classes, and no tensor of targets has the logits' shape.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.arithmetic import log1p, sigmoid
from twinloss.backends.triton.launch import Kernels, launch


@triton.jit
def semantic_logits(
    semantic: tl.tuple, image: tl.tensor, label: tl.tensor, pixel: tl.tensor, columns: tl.tensor, asked: tl.tensor
) -> tl.tensor:
    """Logits (n,) of one image and class; −∞ where ``asked`` is false."""
    values, per_image, per_class, per_row, per_column = semantic
    place = values + image.to(tl.int64) * per_image + label.to(tl.int64) * per_class
    return tl.load(place + (pixel // columns) * per_row + (pixel % columns) * per_column, mask=asked, other=float("-inf")).to(tl.float32)


@triton.jit
def semantic_sums_kernel(
    semantic: tl.tuple,
    class_map: tl.tensor,
    classes: tl.tensor,
    pixels: tl.tensor,
    columns: tl.tensor,
    sums: tl.tensor,
    TILE: tl.constexpr,
) -> None:
    """Store for one image and class Σ σ·y, Σ σ + Σ y and Σ softplus(±z), in float64."""
    program = tl.program_id(0)
    image = program // classes
    label = program % classes
    common = tl.zeros((TILE,), tl.float32)
    either = tl.zeros((TILE,), tl.float32)
    entropy = tl.zeros((TILE,), tl.float32)
    for start in range(0, pixels, TILE):
        pixel = start + tl.arange(0, TILE)
        asked = pixel < pixels
        z = semantic_logits(semantic, image, label, pixel, columns, asked)
        y = tl.load(class_map + image.to(tl.int64) * pixels + pixel, mask=asked, other=-1) == label
        share = sigmoid(z)
        common += tl.where(y, share, 0.0)
        either += share + y.to(tl.float32)
        # The cross-entropy with 1 is that of the opposite logit with 0. The maximum would drop NaN; e carries it on.
        z = tl.where(y, -z, z)
        entropy += tl.where(z > 0, z, 0.0) + log1p(tl.exp(-tl.abs(z)))
    place = sums + program.to(tl.int64) * 3
    tl.store(place, tl.sum(common.to(tl.float64), axis=0))
    tl.store(place + 1, tl.sum(either.to(tl.float64), axis=0))
    tl.store(place + 2, tl.sum(entropy.to(tl.float64), axis=0))


def semantic_sums(semantic: Tensor, classes: Tensor, sums: Tensor, kernels: Kernels) -> None:
    """Fill ``sums`` (B, C, 3) float64 for logits (B, C, h_s, w_s) and a map of classes (B, h_s, w_s)."""
    tile, (images, count, tall, wide) = tiles.SEMANTIC_SUMS, semantic.shape
    launch(
        kernels,
        semantic_sums_kernel,
        images * count,
        tile.warps,
        (semantic, *semantic.stride()),
        classes,
        count,
        tall * wide,
        wide,
        sums,
        TILE=tile.size,
    )
