"""Kernel: the gradient of the mask term by the coefficients of the held anchors (segmentation spec section 8).

A program walks over the crop of one held anchor: each element of the gradient has one writer, and its sum one order.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.held_crops import HeldCrops
from twinloss.backends.triton.launch import Kernels, launch
from twinloss.backends.triton.mask_arguments import MaskArguments
from twinloss.backends.triton.mask_pixels import coefficients_at, residual, values_at
from twinloss.backends.triton.mask_tile import crop_at, pixel_share


@triton.jit(do_not_specialize=["slot_count", "images", "scale"])
def mask_coefficients_gradient_kernel(
    coefficients: tl.tuple,
    prototypes: tl.tuple,
    masks: tl.tuple,
    grids: tl.tuple,
    crops: tl.tensor,
    first: tl.tensor,
    slot_count: tl.tensor,
    images: tl.tensor,
    incoming: tl.tensor,
    scale: tl.tensor,
    gradient: tl.tensor,
    anchors: tl.tensor,
    P: tl.constexpr,
    P_BLOCK: tl.constexpr,
    SAME_GRID: tl.constexpr,
    INDEX_MAPS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Write one held anchor's column of the gradient."""
    place = tl.program_id(0)
    held = tl.load(first + images)
    if place < held:
        border, owner, area = crop_at(crops, slot_count, place)
        image, _, anchor, _ = owner
        x1, x2, y1, y2 = border
        wide = tl.maximum(x2 - x1, 1)
        pixels = (x2 - x1) * (y2 - y1)
        column = coefficients_at(coefficients, image, anchor, P, P_BLOCK)
        sums = tl.zeros((P_BLOCK, TILE), tl.float32)
        for start in range(0, pixels, TILE):
            pixel = start + tl.arange(0, TILE)
            asked = pixel < pixels
            x = x1 + pixel % wide
            y = y1 + pixel // wide
            values = values_at(prototypes, image, x, y, asked, grids, P, P_BLOCK, SAME_GRID)
            sums += values * residual(column, values, masks, owner, x, y, asked, INDEX_MAPS)[None, :]
        # The crop of a box without area is empty, and what a pixel of it would count is infinite.
        factor = tl.where(pixels > 0, pixel_share(area, grids, held), 0.0) * (tl.load(incoming) * scale)
        channel = tl.arange(0, P_BLOCK)
        into = gradient + (image.to(tl.int64) * P + channel) * anchors + anchor
        tl.store(into, (tl.sum(sums, axis=1) * factor).to(gradient.dtype.element_ty), mask=channel < P)


def mask_coefficients_gradient(
    masks: MaskArguments, crops: HeldCrops, incoming: Tensor, scale: float, gradient: Tensor, kernels: Kernels
) -> None:
    """Write the columns of the held anchors into ``gradient`` (B, P, A), which is contiguous, times ``incoming[0] · scale``."""
    tile, count = tiles.MASK_COEFFICIENTS_GRADIENT, crops.table.shape[1]
    launch(
        kernels,
        mask_coefficients_gradient_kernel,
        count,
        tile.warps,
        *crops.common(masks),
        incoming,
        scale,
        gradient,
        gradient.shape[2],
        **masks.constants,
        TILE=tile.size,
    )
