"""Kernel: the gradient of the mask term by the prototypes, tile by tile of their grid (segmentation spec section 8).

Each tile's program gathers what the crops that meet it send there: each element of the gradient has one writer, and its sum one order.
Where masks have another grid, a prototype's pixel gathers from the pixels of the masks' grid that read it: a window of REACH rows and
columns at most, since a pixel at u reads ⌊u⌋ and the next.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.held_crops import HeldCrops
from twinloss.backends.triton.launch import Kernels, blocks, launch
from twinloss.backends.triton.mask_arguments import MaskArguments
from twinloss.backends.triton.mask_pixels import coefficients_at, residual, values_at, weight_in
from twinloss.backends.triton.mask_tile import SLOTS, crop_at, first_of, inside, meeting, pixel_share, tile_pixels


@triton.jit
def first_reader(place: tl.tensor, quotient: tl.tensor) -> tl.tensor:
    """The first place of the resized axis that may read a place of the axis, or one before it."""
    at = tl.floor(tl.div_rn(place.to(tl.float32) - 0.5, quotient + tl.zeros_like(place).to(tl.float32)) - 0.5)
    return tl.maximum(at, 0.0).to(tl.int32)


@triton.jit
def residual_at(
    coefficients: tl.tensor,
    prototypes: tl.tuple,
    masks: tl.tuple,
    owner: tl.tuple,
    x: tl.tensor,
    y: tl.tensor,
    asked: tl.tensor,
    grids: tl.tuple,
    P: tl.constexpr,
    P_BLOCK: tl.constexpr,
    SAME_GRID: tl.constexpr,
    INDEX_MAPS: tl.constexpr,
) -> tl.tensor:
    """σ(x) − y (n,) of an anchor at pixels of the masks' grid, 0 where ``asked`` is false."""
    values = values_at(prototypes, owner[0], x, y, asked, grids, P, P_BLOCK, SAME_GRID)
    return residual(coefficients, values, masks, owner, x, y, asked, INDEX_MAPS)


@triton.jit(do_not_specialize=["slot_count", "images", "scale"])
def mask_prototypes_gradient_kernel(
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
    P: tl.constexpr,
    P_BLOCK: tl.constexpr,
    SAME_GRID: tl.constexpr,
    INDEX_MAPS: tl.constexpr,
    REACH_Y: tl.constexpr,
    REACH_X: tl.constexpr,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
    SLOTS: tl.constexpr,
) -> None:
    """Write one tile of the gradient."""
    _, _, tall, wide, quotient_y, quotient_x = grids
    image, left, top, x, y = tile_pixels(tl.program_id(0), tall, wide, TALL, WIDE)
    if SAME_GRID:
        right = left + WIDE
        bottom = top + TALL
    else:
        reader_x = first_reader(x, quotient_x)
        reader_y = first_reader(y, quotient_y)
        left = tl.min(reader_x, axis=0)
        top = tl.min(reader_y, axis=0)
        right = tl.max(reader_x, axis=0) + REACH_X
        bottom = tl.max(reader_y, axis=0) + REACH_Y
    held = tl.load(first + images)
    end = tl.load(first + image + 1)
    lane = tl.arange(0, SLOTS)
    sums = tl.zeros((P_BLOCK, TALL * WIDE), tl.float32)
    for start in range(tl.load(first + image), end, SLOTS):
        hit = meeting(crops, slot_count, start + lane, end, left, right, top, bottom)
        place = first_of(hit)
        while place < SLOTS:
            border, owner, area = crop_at(crops, slot_count, start + place)
            column = coefficients_at(coefficients, image, owner[2], P, P_BLOCK)
            if SAME_GRID:
                asked = inside(border, x, y)
                sent = residual_at(column, prototypes, masks, owner, x, y, asked, grids, P, P_BLOCK, SAME_GRID, INDEX_MAPS)
            else:
                sent = tl.zeros((TALL * WIDE,), tl.float32)
                asked = sent != 0
                for step in range(REACH_Y * REACH_X):
                    at_x = reader_x + step % REACH_X
                    at_y = reader_y + step // REACH_X
                    weight = weight_in(at_y, y, tall, quotient_y) * weight_in(at_x, x, wide, quotient_x)
                    reads = inside(border, at_x, at_y) & (weight != 0) & (x < wide) & (y < tall)
                    read = residual_at(column, prototypes, masks, owner, at_x, at_y, reads, grids, P, P_BLOCK, SAME_GRID, INDEX_MAPS)
                    sent += read * weight
                    asked = asked | reads
            # A coefficient that is no number shows in its crop alone.
            sums += tl.where(asked[None, :], column[:, None] * (sent * pixel_share(area, grids, held))[None, :], 0.0)
            hit = hit & (lane > place)
            place = first_of(hit)
    channel = tl.arange(0, P_BLOCK)
    there = (channel < P)[:, None] & ((x < wide) & (y < tall))[None, :]
    into = gradient + ((image.to(tl.int64) * P + channel) * tall)[:, None] * wide + (y * wide + x)[None, :]
    tl.store(into, (sums * (tl.load(incoming) * scale)).to(gradient.dtype.element_ty), mask=there)


def reach(size: int, resized: int) -> int:
    """Most places of a resized axis from the first that may read a place of the axis of ``size`` to the last that does."""
    return min(math.ceil(2 * resized / size) + 2, resized)


def mask_prototypes_gradient(
    masks: MaskArguments, crops: HeldCrops, incoming: Tensor, scale: float, gradient: Tensor, kernels: Kernels
) -> None:
    """Fill ``gradient`` (B, P, h_p, w_p), which is contiguous, times ``incoming[0] · scale``."""
    (tall, wide), (rows, columns) = masks.prototype_grid, masks.grid
    tile = tiles.MASK_PROTOTYPES_GRADIENT if masks.same_grid else tiles.MASK_PROTOTYPES_GRADIENT_RESIZED
    launch(
        kernels,
        mask_prototypes_gradient_kernel,
        gradient.shape[0] * blocks(tall, tile.rows) * blocks(wide, tile.columns),
        tile.warps,
        *crops.common(masks),
        incoming,
        scale,
        gradient,
        **masks.constants,
        REACH_Y=reach(tall, rows),
        REACH_X=reach(wide, columns),
        TALL=tile.rows,
        WIDE=tile.columns,
        SLOTS=SLOTS,
    )
