"""Keypoints in registers: where they are predicted, the level gate, and their similarity (pose spec sections 3 and 4).

``compared`` is what the assigner compares ground truth with: ``(predicted,)`` for boxes, and for keypoints also their predictions
(B, n·E, A), targets (N, n, 2 or 3) as shares of the image, 8σ² (n,), the anchors' x, y and stride (3, A), and n, E and the numbers of a
target as floats.
"""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton.arithmetic import decay
from twinloss.backends.triton.geometry import cells_inside

# What the overlap of a pair is: CIoU, ProbIoU, or the similarity of keypoints, which is kept by its logarithm.
CIOU = tl.constexpr(0)
PROBIOU = tl.constexpr(1)
KEYPOINTS = tl.constexpr(2)

_EPS = tl.constexpr(1e-9)
_AREA_SHARE = tl.constexpr(0.53)
_LEAST_SIDE = tl.constexpr(2.0)
_MOST_SIDE = tl.constexpr(12.0)


@triton.jit
def kept(logarithm: tl.tensor) -> tl.tensor:
    """A number from 0 to 1 by its logarithm, as :mod:`twinloss.assignment.log_numbers` keeps it."""
    return tl.div_rn(tl.full(logarithm.shape, 1.0, tl.float32), 1.0 - logarithm)


@triton.jit
def logarithm(number: tl.tensor) -> tl.tensor:
    """The logarithm of a number that is kept."""
    return 1.0 - tl.div_rn(tl.full(number.shape, 1.0, tl.float32), number)


@triton.jit
def box_area(row: tl.tensor, asked: tl.tensor, truth: tl.tuple) -> tl.tensor:
    """Area of upright boxes in square pixels."""
    w = tl.load(truth[2] + row * 4 + 2, mask=asked, other=0.0).to(tl.float32) * truth[5]
    h = tl.load(truth[2] + row * 4 + 3, mask=asked, other=0.0).to(tl.float32) * truth[6]
    return w * h


@triton.jit
def fits_level(area: tl.tensor, stride: tl.tensor, finest: tl.tensor, coarsest: tl.tensor) -> tl.tensor:
    """Whether boxes fit levels: √(w · h) lies between 2 and 12 strides; small boxes fit the finest level, large ones the coarsest."""
    side = tl.sqrt_rn(tl.where(area < 0, 0.0, area))
    return ((side >= _LEAST_SIDE * stride) | (stride == finest)) & ((side <= _MOST_SIDE * stride) | (stride == coarsest))


@triton.jit
def count_fitting(corners: tl.tuple, area: tl.tensor, levels: tl.tuple, eps: tl.tensor, LEVELS: tl.constexpr) -> tl.tensor:
    """Number of anchors strictly inside a (lengthened) box on the levels that it fits."""
    rows, columns, strides = levels
    total = 0
    for level in tl.static_range(LEVELS):
        _, wide = cells_inside(corners[0], corners[2], strides[level], columns[level], eps)
        _, high = cells_inside(corners[1], corners[3], strides[level], rows[level], eps)
        fits = fits_level(area, strides[level] + 0.0 * area, strides[0], strides[LEVELS - 1])
        total += tl.where(fits, wide * high, 0)
    return total


@triton.jit
def visible(keypoint: tl.tensor, asked: tl.tensor, numbers: tl.tensor) -> tl.tensor:
    """Whether target keypoints are visible: the third of their ``numbers``, of the shape of ``asked``, is not 0; of two all are."""
    flag = tl.load(keypoint + 2, mask=asked & (numbers > 2), other=1.0)
    return asked & (flag != 0)


@triton.jit
def log_similarity(
    compared: tl.tuple, place: tl.tensor, anchor: tl.tensor, anchors: tl.tensor, row: tl.tensor, asked: tl.tensor, truth: tl.tuple
) -> tl.tuple:
    """Logarithm of the mean of e^−error over a box's visible keypoints, and their number.

    ``place`` is the anchor's index in the batch, ``anchor`` that within its image. The sum is relative to the least error so far.
    """
    _, kpts, keypoints, doubled, centres, points, numbers, target_numbers = compared
    none = tl.zeros(anchor.shape, tl.float32)
    stride = tl.load(centres + 2 * anchors + anchor, mask=asked, other=1.0)
    x = tl.load(centres + anchor, mask=asked, other=0.0) * stride
    y = tl.load(centres + anchors + anchor, mask=asked, other=0.0) * stride
    rows = row + tl.zeros_like(anchor)
    area = _AREA_SHARE * box_area(rows, asked, truth) + _EPS
    of_target = tl.cast(target_numbers, tl.int32)
    of_point = tl.cast(numbers, tl.int32)
    count = tl.cast(points, tl.int32)
    column = kpts + (place - anchor).to(tl.int64) * (count * of_point) + anchor
    target = keypoints + rows.to(tl.int64) * (count * of_target)
    nearest = tl.full(anchor.shape, float("inf"), tl.float32)
    total = none
    seen = none
    for k in range(count):
        shown = visible(target + k * of_target, asked, of_target + tl.zeros_like(anchor))
        channel = column + (k * of_point).to(tl.int64) * anchors
        raw_x = tl.load(channel, mask=shown, other=0.0).to(tl.float32)
        raw_y = tl.load(channel + anchors, mask=shown, other=0.0).to(tl.float32)
        dx = raw_x * stride - (tl.load(target + k * of_target, mask=shown, other=0.0) * truth[5] - x)
        dy = raw_y * stride - (tl.load(target + k * of_target + 1, mask=shown, other=0.0) * truth[6] - y)
        error = tl.div_rn(dx * dx + dy * dy, area * tl.load(doubled + k))
        now = tl.where(error < nearest, error, nearest)
        added = total * decay(now - nearest) + decay(now - error)
        counts = shown & (error != float("inf"))  # what is infinitely far adds nothing
        total = tl.where(counts, added, total)
        nearest = tl.where(counts, now, nearest)
        seen += tl.where(shown, 1.0, 0.0)
    found = tl.log(total) - nearest - tl.log(tl.where(seen == 0, 1.0, seen))
    return tl.where(total == 0, -float("inf"), found), seen
