"""Tiles of a grid, and the held crops that meet them (segmentation spec section 4).

``crops`` is the table (FIELDS, S) of :mod:`~twinloss.backends.triton.held_crops`. A program that owns a tile visits the crops of its image,
SLOTS at a time: it tests all of these at once, and then takes those that meet the tile, one after the other. Their order is fixed, hence
that of every sum.
"""

from __future__ import annotations

import triton
import triton.language as tl

SLOTS = 32
"""Crops that are tested at once: one a thread of a warp."""


@triton.jit
def tile_pixels(program: tl.tensor, rows: tl.tensor, columns: tl.tensor, TALL: tl.constexpr, WIDE: tl.constexpr) -> tl.tuple:
    """Image of a program's tile, first column and row, and column and row of each pixel (TALL · WIDE,), outside of the grid included."""
    across = tl.cdiv(columns, WIDE)
    per_image = across * tl.cdiv(rows, TALL)
    image = program // per_image
    tile = program % per_image
    left = (tile % across) * WIDE
    top = (tile // across) * TALL
    lane = tl.arange(0, TALL * WIDE)
    return image, left, top, left + lane % WIDE, top + lane // WIDE


@triton.jit
def meeting(
    crops: tl.tensor,
    slot_count: tl.tensor,
    at: tl.tensor,
    end: tl.tensor,
    left: tl.tensor,
    right: tl.tensor,
    top: tl.tensor,
    bottom: tl.tensor,
) -> tl.tensor:
    """Which crops (SLOTS,) have a pixel in the columns [left, right) and rows [top, bottom)."""
    here = at < end
    plane = slot_count.to(tl.int64)
    x1 = tl.load(crops + at, mask=here, other=0)
    x2 = tl.load(crops + plane + at, mask=here, other=0)
    y1 = tl.load(crops + 2 * plane + at, mask=here, other=0)
    y2 = tl.load(crops + 3 * plane + at, mask=here, other=0)
    return here & (tl.maximum(x1, left) < tl.minimum(x2, right)) & (tl.maximum(y1, top) < tl.minimum(y2, bottom))


@triton.jit
def first_of(hit: tl.tensor) -> tl.tensor:
    """Number of the first lane (SLOTS,) that is true, or their number."""
    lane = tl.arange(0, hit.shape[0])
    return tl.min(tl.where(hit, lane, hit.shape[0]), axis=0)


@triton.jit
def crop_at(crops: tl.tensor, slot_count: tl.tensor, place: tl.tensor) -> tl.tuple:
    """Columns [x1, x2) and rows [y1, y2) of one crop, and its image, row of the batch, anchor, index in a map, and area."""
    plane = slot_count.to(tl.int64)
    first = crops + place
    border = (tl.load(first), tl.load(first + plane), tl.load(first + 2 * plane), tl.load(first + 3 * plane))
    owner = (tl.load(first + 4 * plane), tl.load(first + 5 * plane), tl.load(first + 6 * plane), tl.load(first + 7 * plane))
    return border, owner, tl.load(first + 8 * plane).to(tl.float32, bitcast=True)


@triton.jit
def inside(border: tl.tuple, x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """Whether pixels lie in a crop."""
    x1, x2, y1, y2 = border
    return (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)


@triton.jit
def pixel_share(area: tl.tensor, grids: tl.tuple, held: tl.tensor) -> tl.tensor:
    """What a pixel counts in the mask term: 1 / (h · w · a · n), a the box's area as a share of the image's, n all held anchors."""
    return tl.div_rn(1.0, area * (tl.cast(grids[0], tl.float32) * tl.cast(grids[1], tl.float32) * held.to(tl.float32)))
