"""Positions of anchors and ground truth: the pyramid, a row of the batch, the cells inside a box (spec sections 2, 3 and 5.1).

``levels`` is a tuple of three: the levels' rows, columns and strides. A box is a tuple of its corners (x1, y1, x2, y2), or (x, y, w, h, θ)
where ORIENTED. Whole numbers that
vary from batch to batch are passed as floats: the compiler would build another kernel for each integer in a tuple that is 1 or a multiple
of 16.
"""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton.arithmetic import principal


@triton.jit
def anchor_place(anchor: tl.tensor, levels: tl.tuple, LEVELS: tl.constexpr) -> tl.tuple:
    """Centre x and y in grid units and stride in pixels of anchors, given by index within the image."""
    rows, columns, strides = levels
    offset = 0
    first = tl.zeros_like(anchor)
    width = tl.zeros_like(anchor) + 1
    stride = tl.zeros(anchor.shape, tl.float32)
    for level in tl.static_range(LEVELS):
        here = anchor >= offset
        first = tl.where(here, offset, first)
        width = tl.where(here, tl.cast(columns[level], tl.int32), width)
        stride = tl.where(here, strides[level], stride)
        offset += tl.cast(rows[level], tl.int32) * tl.cast(columns[level], tl.int32)
    within = anchor - first
    y = within // width
    x = within - y * width
    return x.to(tl.float32) + 0.5, y.to(tl.float32) + 0.5, stride


@triton.jit
def ground_truth(row: tl.tensor, asked: tl.tensor, truth: tl.tuple, ORIENTED: tl.constexpr) -> tl.tuple:
    """Image, class, box in pixels and validity of rows of the batch.

    A row is valid if ``asked`` is true, its image and class exist, the numbers of its box are finite and their sum is positive, and an
    oriented box has no side below two pixels. Rows with image −1 are thus padding, and nothing is read out of bounds.
    """
    batch_idx, cls, bboxes, images, classes, extent_x, extent_y = truth
    image = tl.load(batch_idx + row, mask=asked, other=-1).to(tl.float32)
    label = tl.load(cls + row, mask=asked, other=-1).to(tl.float32)
    known = (image >= 0) & (image < images) & (label >= 0) & (label < classes)
    if ORIENTED:
        cx = tl.load(bboxes + row * 5, mask=asked, other=0.0).to(tl.float32) * extent_x
        cy = tl.load(bboxes + row * 5 + 1, mask=asked, other=0.0).to(tl.float32) * extent_y
        w = tl.load(bboxes + row * 5 + 2, mask=asked, other=0.0).to(tl.float32) * extent_x
        h = tl.load(bboxes + row * 5 + 3, mask=asked, other=0.0).to(tl.float32) * extent_y
        angle = tl.load(bboxes + row * 5 + 4, mask=asked, other=0.0).to(tl.float32)
        total = cx + cy + w + h + angle
        known = known & (w >= 2.0) & (h >= 2.0)
        box: tl.tuple = (cx, cy, w, h, principal(angle))
    else:
        cx = tl.load(bboxes + row * 4, mask=asked, other=0.0).to(tl.float32) * extent_x
        cy = tl.load(bboxes + row * 4 + 1, mask=asked, other=0.0).to(tl.float32) * extent_y
        half_w = tl.load(bboxes + row * 4 + 2, mask=asked, other=0.0).to(tl.float32) * extent_x * 0.5
        half_h = tl.load(bboxes + row * 4 + 3, mask=asked, other=0.0).to(tl.float32) * extent_y * 0.5
        box = (cx - half_w, cy - half_h, cx + half_w, cy + half_h)
        total = box[0] + box[1] + box[2] + box[3]
    valid = asked & known & (total > 0) & (total < float("inf"))
    return tl.where(valid, image, 0.0).to(tl.int32), tl.where(valid, label, 0.0).to(tl.int32), box, valid


@triton.jit
def in_grid_units(corners: tl.tuple, stride: tl.tensor) -> tl.tuple:
    """Corners in cells of the level with this stride."""
    x1, y1, x2, y2 = corners
    return tl.div_rn(x1, stride), tl.div_rn(y1, stride), tl.div_rn(x2, stride), tl.div_rn(y2, stride)


@triton.jit
def beside_anchor(box: tl.tuple, x: tl.tensor, y: tl.tensor, stride: tl.tensor) -> tl.tuple:
    """An oriented box in cells of the level with this stride, its centre relative to the anchor's, (x, y) in cells."""
    return tl.div_rn(box[0], stride) - x, tl.div_rn(box[1], stride) - y, tl.div_rn(box[2], stride), tl.div_rn(box[3], stride), box[4]


@triton.jit
def lengthened(corners: tl.tuple, below: tl.tensor, shortest: tl.tensor) -> tl.tuple:
    """The box with every side shorter than ``below`` pixels lengthened to ``shortest`` about the centre, for the inside test alone."""
    x1, x2 = _lengthened_side(corners[0], corners[2], below, shortest)
    y1, y2 = _lengthened_side(corners[1], corners[3], below, shortest)
    return x1, y1, x2, y2


@triton.jit
def _lengthened_side(low: tl.tensor, high: tl.tensor, below: tl.tensor, shortest: tl.tensor) -> tl.tuple:
    centre = (low + high) * 0.5
    size = high - low
    half = tl.where(size < below, shortest, size) * 0.5
    return centre - half, centre + half


@triton.jit
def cells_inside(low: tl.tensor, high: tl.tensor, stride: tl.tensor, cells: tl.tensor, eps: tl.tensor) -> tl.tuple:
    """First cell along an axis whose centre lies strictly inside (low, high), and number of such cells."""
    first = tl.minimum(tl.maximum(tl.floor(low / stride - 0.5), 0.0), cells)
    last = tl.minimum(tl.maximum(tl.ceil(high / stride - 0.5), -1.0), cells - 1.0)
    # Rounding the quotient can be wrong by a cell, so the definition's own test decides at both ends; two steps correct more than that.
    for _ in tl.static_range(2):
        first = tl.where((first + 0.5) * stride - low > eps, first, first + 1.0)
        last = tl.where(high - (last + 0.5) * stride > eps, last, last - 1.0)
    return first.to(tl.int32), tl.maximum(last - first + 1.0, 0.0).to(tl.int32)


@triton.jit
def count_candidates(area: tl.tuple, levels: tl.tuple, eps: tl.tensor, LEVELS: tl.constexpr) -> tl.tensor:
    """Number of anchors strictly inside a (lengthened) box, over all levels."""
    rows, columns, strides = levels
    total = 0
    for level in tl.static_range(LEVELS):
        _, wide = cells_inside(area[0], area[2], strides[level], columns[level], eps)
        _, high = cells_inside(area[1], area[3], strides[level], rows[level], eps)
        total += wide * high
    return total


@triton.jit
def nth_candidate(n: tl.tensor, area: tl.tuple, levels: tl.tuple, eps: tl.tensor, LEVELS: tl.constexpr) -> tl.tensor:
    """Index of the n-th anchor strictly inside a (lengthened) box, counted level by level and row by row: the index ascends with n."""
    rows, columns, strides = levels
    before = 0
    offset = 0
    within = n
    wide_here = tl.zeros_like(n) + 1
    columns_here = tl.zeros_like(n)
    corner = tl.zeros_like(n)
    for level in tl.static_range(LEVELS):
        first_x, wide = cells_inside(area[0], area[2], strides[level], columns[level], eps)
        first_y, high = cells_inside(area[1], area[3], strides[level], rows[level], eps)
        here = n >= before
        width = tl.cast(columns[level], tl.int32)
        within = tl.where(here, n - before, within)
        wide_here = tl.where(here, tl.maximum(wide, 1), wide_here)
        columns_here = tl.where(here, width, columns_here)
        corner = tl.where(here, offset + first_y * width + first_x, corner)
        before += wide * high
        offset += tl.cast(rows[level], tl.int32) * width
    y = within // wide_here
    return corner + y * columns_here + (within - y * wide_here)
