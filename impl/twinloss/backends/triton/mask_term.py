"""Kernel: the cross-entropy of the held anchors' masks inside their boxes, tile by tile of the masks' grid (segmentation spec section 4).

Each tile's program visits the crops that meet it. Prototypes of the pixels inside them are read from memory once, and from the cache for
the other anchors that learn there.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.arithmetic import log1p
from twinloss.backends.triton.held_crops import HeldCrops
from twinloss.backends.triton.launch import Kernels, blocks, launch
from twinloss.backends.triton.mask_arguments import MaskArguments
from twinloss.backends.triton.mask_pixels import coefficients_at, logits, true_mask, values_at
from twinloss.backends.triton.mask_tile import SLOTS, crop_at, first_of, inside, meeting, pixel_share, tile_pixels


@triton.jit(do_not_specialize=["slot_count", "images"])
def mask_term_kernel(
    coefficients: tl.tuple,
    prototypes: tl.tuple,
    masks: tl.tuple,
    grids: tl.tuple,
    crops: tl.tensor,
    first: tl.tensor,
    slot_count: tl.tensor,
    images: tl.tensor,
    partial: tl.tensor,
    P: tl.constexpr,
    P_BLOCK: tl.constexpr,
    SAME_GRID: tl.constexpr,
    INDEX_MAPS: tl.constexpr,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
    SLOTS: tl.constexpr,
) -> None:
    """Store the sum over the tile's pixels of all crops' cross-entropies, each times what a pixel of its crop counts."""
    image, left, top, x, y = tile_pixels(tl.program_id(0), grids[0], grids[1], TALL, WIDE)
    held = tl.load(first + images)
    end = tl.load(first + image + 1)
    lane = tl.arange(0, SLOTS)
    total = tl.zeros((TALL * WIDE,), tl.float32)
    for start in range(tl.load(first + image), end, SLOTS):
        hit = meeting(crops, slot_count, start + lane, end, left, left + WIDE, top, top + TALL)
        place = first_of(hit)
        while place < SLOTS:
            border, owner, area = crop_at(crops, slot_count, start + place)
            asked = inside(border, x, y)
            values = values_at(prototypes, image, x, y, asked, grids, P, P_BLOCK, SAME_GRID)
            logit = logits(coefficients_at(coefficients, image, owner[2], P, P_BLOCK), values)
            target = true_mask(masks, image, owner[1], owner[3], x, y, asked, INDEX_MAPS)
            size = tl.abs(logit)
            entropy = size * tl.where(logit > 0, 1 - target, target) + log1p(tl.exp(-size))
            total += tl.where(asked, entropy * pixel_share(area, grids, held), 0.0)
            hit = hit & (lane > place)
            place = first_of(hit)
    tl.store(partial + tl.program_id(0), tl.sum(total, axis=0))


def mask_programs(masks: MaskArguments) -> int:
    """Number of programs, which is the number of partial sums."""
    rows, columns = masks.grid
    tile = tiles.MASK_TERM
    return masks.prototypes.shape[0] * blocks(rows, tile.rows) * blocks(columns, tile.columns)


def mask_term(masks: MaskArguments, crops: HeldCrops, partial: Tensor, kernels: Kernels) -> None:
    """Fill ``partial`` (programs,) with sums that add up to the mask term."""
    tile = tiles.MASK_TERM
    launch(
        kernels,
        mask_term_kernel,
        mask_programs(masks),
        tile.warps,
        *crops.common(masks),
        partial,
        **masks.constants,
        TALL=tile.rows,
        WIDE=tile.columns,
        SLOTS=SLOTS,
    )
