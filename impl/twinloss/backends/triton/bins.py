"""Logits of one side's bins for a vector of n anchors, and functions of their softmax (spec sections 4 and 7).

A thread keeps all bins of its anchors in registers, as a tuple of R vectors (n,): threads exchange nothing, and adjacent anchors are read
together. The loop over the sides is not unrolled: compile time grows with the square of a kernel's loads.
"""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton.arithmetic import decay, greatest


@triton.jit
def bin_logits(column: tl.tensor, asked: tl.tensor, anchors: tl.tensor, side: tl.tensor, R: tl.constexpr) -> tl.tuple:
    """R logits (n,) of one side as float32; ``column`` (n,) points to each anchor's first channel. Zeros where ``asked`` is false."""
    step = tl.cast(anchors, tl.int64)
    first = column + side * R * step
    logits: tl.tuple = ()
    for k in tl.static_range(R):
        logits += (tl.load(first + k * step, mask=asked, other=0.0).to(tl.float32),)
    return logits


@triton.jit
def exponentials(logits: tl.tuple, R: tl.constexpr) -> tl.tuple:
    """e^(x − max x) of each bin, their sum, and the logarithm of the sum of e^x."""
    top = logits[0]
    for k in tl.static_range(1, R):
        top = greatest(top, logits[k])
    parts: tl.tuple = ()
    for k in tl.static_range(R):
        parts += (decay(logits[k] - top),)
    total = pairwise_sum(parts, 0, R)
    return parts, total, top + tl.log(total)


@triton.jit
def pairwise_sum(parts: tl.tuple, FIRST: tl.constexpr, COUNT: tl.constexpr) -> tl.tensor:
    """Sum of COUNT adjacent parts, by halves, so that rounding errors do not accumulate over many small parts beside a large one."""
    if COUNT == 1:
        result = parts[FIRST]
    else:
        result = pairwise_sum(parts, FIRST, COUNT // 2) + pairwise_sum(parts, FIRST + COUNT // 2, COUNT - COUNT // 2)
    return result


@triton.jit
def expectation(parts: tl.tuple, total: tl.tensor, R: tl.constexpr) -> tl.tensor:
    """Mean bin index under shares ``parts`` / ``total``."""
    moments: tl.tuple = ()
    for k in tl.static_range(R):
        moments += (parts[k] * k,)
    return tl.div_rn(pairwise_sum(moments, 0, R), total)


@triton.jit
def expected_distance(logits: tl.tuple, R: tl.constexpr) -> tl.tensor:
    """Distance (n,) of one side in grid units: the expectation of the bin index, or the logit itself for R = 1."""
    if R == 1:
        distance = logits[0]
    else:
        parts, total, _ = exponentials(logits, R)
        distance = expectation(parts, total, R)
    return distance


@triton.jit
def put(box: tl.tuple, side: tl.tensor, distance: tl.tensor) -> tl.tuple:
    """The four distances with that of ``side`` replaced."""
    left, top, right, bottom = box
    left = tl.where(side == 0, distance, left)
    top = tl.where(side == 1, distance, top)
    right = tl.where(side == 2, distance, right)
    bottom = tl.where(side == 3, distance, bottom)
    return left, top, right, bottom


@triton.jit
def box_at(x: tl.tensor, y: tl.tensor, distances: tl.tuple) -> tl.tuple:
    """Corners (x1, y1, x2, y2) of the box whose sides lie at these distances from the centre (x, y)."""
    return x - distances[0], y - distances[1], x + distances[2], y + distances[3]


@triton.jit
def target_distance(x: tl.tensor, y: tl.tensor, corners: tl.tuple, side: tl.tensor) -> tl.tensor:
    """Distance from the anchor to one side of the ground truth, all in grid units."""
    x1, y1, x2, y2 = corners
    return tl.where(side == 0, x - x1, tl.where(side == 1, y - y1, tl.where(side == 2, x2 - x, y2 - y)))


@triton.jit
def at_side(distances: tl.tuple, side: tl.tensor) -> tl.tensor:
    """One of the four distances."""
    left, top, right, bottom = distances
    return tl.where(side == 0, left, tl.where(side == 1, top, tl.where(side == 2, right, bottom)))


@triton.jit
def clamped(distance: tl.tensor, limit: tl.tensor) -> tl.tuple:
    """Lower bin of a target distance clamped to [0, limit], and the weight of the upper bin."""
    d = tl.where(distance <= 0, 0.0, tl.where(distance >= limit, limit, distance))
    lower = tl.floor(d)
    return lower.to(tl.int32), d - lower


@triton.jit
def scaled(distance: tl.tensor, stride: tl.tensor, side: tl.tensor, truth: tl.tuple) -> tl.tensor:
    """A distance in grid units as a share of the image's width (left, right) or height (top, bottom)."""
    extent = tl.where(side % 2 == 0, truth[5], truth[6])
    return tl.div_rn(distance * stride, extent + tl.zeros_like(distance))
