"""Kernel: the gradient of the semantic term by its logits (segmentation spec section 8)."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.arithmetic import sigmoid
from twinloss.backends.triton.launch import Kernels, blocks, launch
from twinloss.backends.triton.semantic_sums import semantic_logits


@triton.jit(do_not_specialize=["images", "incoming_stride", "scale"])
def semantic_gradient_kernel(
    semantic: tl.tuple,
    class_map: tl.tensor,
    classes: tl.tensor,
    pixels: tl.tensor,
    columns: tl.tensor,
    sums: tl.tensor,
    first: tl.tensor,
    images: tl.tensor,
    incoming: tl.tensor,
    incoming_stride: tl.tensor,
    scale: tl.tensor,
    gradient: tl.tensor,
    TILE: tl.constexpr,
) -> None:
    """Write one tile of an image's and class' gradient: (σ − y) · e + σ (1 − σ) (d − y · t), with factors that follow from the sums."""
    per_row = tl.cdiv(pixels, TILE)
    row = tl.program_id(0) // per_row
    image = row // classes
    label = row % classes
    pixel = (tl.program_id(0) % per_row) * TILE + tl.arange(0, TILE)
    asked = pixel < pixels
    common = tl.load(sums + row.to(tl.int64) * 3) * 2 + 1
    either = tl.load(sums + row.to(tl.int64) * 3 + 1) + 1
    # Without held anchors in the whole batch the term is 0.
    wanted = tl.where(tl.load(first + images) > 0, tl.load(incoming + incoming_stride) * scale, 0.0)
    per_pair = wanted / (2.0 * images * tl.cast(classes, tl.float32))
    to_entropy = per_pair / tl.cast(pixels, tl.float32)
    everywhere = (common / (either * either)).to(tl.float32) * per_pair
    at_target = (2 / either).to(tl.float32) * per_pair
    share = sigmoid(semantic_logits(semantic, image, label, pixel, columns, asked))
    y = (tl.load(class_map + image.to(tl.int64) * pixels + pixel, mask=asked, other=-1) == label).to(tl.float32)
    found = (share - y) * to_entropy + share * (1 - share) * (everywhere - y * at_target)
    tl.store(gradient + row.to(tl.int64) * pixels + pixel, found.to(gradient.dtype.element_ty), mask=asked)


def semantic_gradient(
    semantic: Tensor, classes: Tensor, sums: Tensor, first: Tensor, incoming: Tensor, scale: float, gradient: Tensor, kernels: Kernels
) -> None:
    """Fill ``gradient`` (B, C, h_s, w_s), which is contiguous, times ``incoming[1] · scale``."""
    tile, (images, count, tall, wide) = tiles.SEMANTIC_GRADIENT, semantic.shape
    launch(
        kernels,
        semantic_gradient_kernel,
        images * count * blocks(tall * wide, tile.size),
        tile.warps,
        (semantic, *semantic.stride()),
        classes,
        count,
        tall * wide,
        wide,
        sums,
        first,
        images,
        incoming,
        incoming.stride(0),
        scale,
        gradient,
        TILE=tile.size,
    )
