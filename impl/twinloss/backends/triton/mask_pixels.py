"""Pixels of masks and prototypes in registers: crops, reading a grid, the true masks (segmentation spec sections 1, 3 and 4).

``prototypes`` is a tuple of the tensor (B, P, h_p, w_p) and its four strides, ``masks`` one of the true masks and their three, and
``grids`` one of rows and columns of the masks' grid, rows and columns of the prototypes', and their quotient for each axis.

A tile of pixels is flat: its shape is (n,), and what is read of the prototypes there is (P_BLOCK, n), with P up to a power of two.
"""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton.arithmetic import sigmoid


@triton.jit
def first_pixel(border: tl.tensor, cells: tl.tensor) -> tl.tensor:
    """The first of ``cells`` whole numbers that is not below a border; ``cells`` itself if there is none, and 0 for NaN."""
    limit = tl.cast(cells, tl.float32)
    return tl.where(border > 0, tl.minimum(tl.ceil(border), limit), 0.0).to(tl.int32)


@triton.jit
def pixels_between(low: tl.tensor, high: tl.tensor, extent: tl.tensor, cells: tl.tensor) -> tl.tuple:
    """First and end of an axis' pixels inside a box, of an image ``extent`` pixels long.

    The order of the operations decides borders that lie on a pixel's edge (section 9).
    """
    length = extent + tl.zeros_like(low)
    first = first_pixel(tl.div_rn(low, length) * tl.cast(cells, tl.float32), cells)
    end = first_pixel(tl.div_rn(high, length) * tl.cast(cells, tl.float32), cells)
    return first, tl.maximum(first, end)


@triton.jit
def neighbours(place: tl.tensor, size: tl.tensor, quotient: tl.tensor) -> tl.tuple:
    """The two places of an axis of ``size`` that a resized axis reads, and the share of the farther one (bilinear)."""
    at = tl.maximum((place.to(tl.float32) + 0.5) * quotient - 0.5, 0.0)
    near = tl.floor(at)
    index = tl.minimum(near.to(tl.int32), size - 1)
    return index, tl.minimum(index + 1, size - 1), at - near


@triton.jit
def nearest(place: tl.tensor, size: tl.tensor, quotient: tl.tensor) -> tl.tensor:
    """The place of an axis of ``size`` that a resized axis takes (nearest)."""
    return tl.minimum(tl.floor(place.to(tl.float32) * quotient).to(tl.int32), size - 1)


@triton.jit
def weight_in(place: tl.tensor, wanted: tl.tensor, size: tl.tensor, quotient: tl.tensor) -> tl.tensor:
    """How much a place of a resized axis takes of the place ``wanted`` of the axis itself (bilinear)."""
    near, far, share = neighbours(place, size, quotient)
    return tl.where(near == wanted, 1 - share, 0.0) + tl.where(far == wanted, share, 0.0)


@triton.jit
def coefficients_at(coefficients: tl.tuple, image: tl.tensor, anchor: tl.tensor, P: tl.constexpr, P_BLOCK: tl.constexpr) -> tl.tensor:
    """Coefficients (P_BLOCK,) of one anchor; ``coefficients`` is a tuple of the tensor (B, P, A) and its three strides."""
    values, per_image, per_channel, per_anchor = coefficients
    channel = tl.arange(0, P_BLOCK)
    column = values + image.to(tl.int64) * per_image + anchor.to(tl.int64) * per_anchor
    return tl.load(column + channel * per_channel, mask=channel < P, other=0.0).to(tl.float32)


@triton.jit
def values_at(
    prototypes: tl.tuple,
    image: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    asked: tl.tensor,
    grids: tl.tuple,
    P: tl.constexpr,
    P_BLOCK: tl.constexpr,
    SAME_GRID: tl.constexpr,
) -> tl.tensor:
    """Prototypes (P_BLOCK, n) of an image at pixels of the masks' grid, 0 where ``asked`` is false: nothing is read there."""
    if SAME_GRID:
        found = _read(prototypes, image, x, y, asked, P, P_BLOCK)
    else:
        _, _, tall, wide, quotient_y, quotient_x = grids
        above, below, down = neighbours(y, tall, quotient_y)
        left, right, across = neighbours(x, wide, quotient_x)
        found = tl.zeros((P_BLOCK, x.shape[0]), tl.float32)
        # The loop is not unrolled: what all four places hold does not fit the registers. A place of weight 0 is not read.
        for place in range(4):
            weight = tl.where(place < 2, 1 - down, down) * tl.where(place % 2 == 0, 1 - across, across)
            at_x = tl.where(place % 2 == 0, left, right)
            at_y = tl.where(place < 2, above, below)
            found += _read(prototypes, image, at_x, at_y, asked & (weight != 0), P, P_BLOCK) * weight[None, :]
    return found


@triton.jit
def _read(
    prototypes: tl.tuple, image: tl.tensor, x: tl.tensor, y: tl.tensor, asked: tl.tensor, P: tl.constexpr, P_BLOCK: tl.constexpr
) -> tl.tensor:
    values, per_image, per_channel, per_row, per_column = prototypes
    channel = tl.arange(0, P_BLOCK)
    column = values + image.to(tl.int64) * per_image + (channel * per_channel)[:, None]
    there = (channel < P)[:, None] & asked[None, :]
    return tl.load(column + (y * per_row + x * per_column)[None, :], mask=there, other=0.0).to(tl.float32)


@triton.jit
def logits(coefficients: tl.tensor, values: tl.tensor) -> tl.tensor:
    """Logits (n,) of one anchor's coefficients (P_BLOCK,) and prototypes (P_BLOCK, n)."""
    return tl.sum(coefficients[:, None] * values, axis=0)


@triton.jit
def true_mask(
    masks: tl.tuple,
    image: tl.tensor,
    row: tl.tensor,
    index: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    asked: tl.tensor,
    INDEX_MAPS: tl.constexpr,
) -> tl.tensor:
    """Values (n,) of a row's mask at pixels of its image: 0 and 1, or those of a floating instance mask; ``index`` is its own in a map."""
    values, per_mask, per_row, per_column = masks
    which = image if INDEX_MAPS else row
    found = tl.load(values + which.to(tl.int64) * per_mask + y * per_row + x * per_column, mask=asked, other=0)
    if INDEX_MAPS:
        if found.dtype.is_floating():
            shown = (found.to(tl.float32) == index.to(tl.float32)).to(tl.float32)
        else:
            shown = (found.to(tl.int64) == index).to(tl.float32)
    elif found.dtype.is_floating():
        shown = found.to(tl.float32)
    else:
        shown = (found != 0).to(tl.float32)
    return shown


@triton.jit
def residual(
    coefficients: tl.tensor,
    values: tl.tensor,
    masks: tl.tuple,
    owner: tl.tuple,
    x: tl.tensor,
    y: tl.tensor,
    asked: tl.tensor,
    INDEX_MAPS: tl.constexpr,
) -> tl.tensor:
    """σ(x) − y (n,) of an anchor with prototypes ``values`` (P_BLOCK, n) at pixels of the masks' grid, 0 where ``asked`` is false.

    ``owner`` is a tuple of image, row of the batch, anchor, and index in an index map.
    """
    target = true_mask(masks, owner[0], owner[1], owner[3], x, y, asked, INDEX_MAPS)
    return tl.where(asked, sigmoid(logits(coefficients, values)) - target, 0.0)
