"""Kernel: every anchor's predicted box in pixels (spec section 4); it also clears the memory that later launches accumulate into.

Each anchor is decoded once, not once for each box that contains it. The box logits are therefore read once, as any forward pass must, and
a crowded image costs no more than an empty one.
"""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import KernelArguments, Scratch
from twinloss.backends.triton.bins import bin_logits, expected_distance
from twinloss.backends.triton.geometry import anchor_place
from twinloss.backends.triton.launch import blocks, launch


@triton.jit(do_not_specialize=["images"])
def decode_kernel(
    boxes: tl.tensor,
    image_stride: tl.tensor,
    images: tl.tensor,
    anchors: tl.tensor,
    levels: tl.tuple,
    scratch: tl.tuple,
    R: tl.constexpr,
    LEVELS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Decode one side of one tile of an image's anchors; the programs of each side clear another part of the scratch."""
    predicted, claims, pickers, nan_carrier = scratch
    program = tl.program_id(0)
    side = program % 4
    per_image = tl.cdiv(anchors, TILE)
    image = (program // 4 // per_image).to(tl.int64)
    anchor = (program // 4 % per_image) * TILE + tl.arange(0, TILE)
    asked = anchor < anchors
    distance = expected_distance(bin_logits(boxes + image * image_stride + anchor, asked, anchors, side, R), R)
    x, y, stride = anchor_place(anchor, levels, LEVELS)
    centre = tl.where(side % 2 == 0, x, y)
    corner = tl.where(side < 2, centre - distance, centre + distance)

    plane = images.to(tl.int64) * anchors
    place = image * anchors + anchor
    tl.store(predicted + side * plane + place, corner * stride, mask=asked)
    part = tl.where(asked, side, -1)
    tl.store(claims + place, tl.zeros((TILE,), tl.int64), mask=part == 0)
    tl.store(pickers + place, tl.zeros((TILE,), tl.int32), mask=part == 1)
    tl.store(pickers + plane + place, tl.zeros((TILE,), tl.int32), mask=part == 2)
    tl.store(nan_carrier, 0, mask=program == 0)


def decode(arguments: KernelArguments, scratch: Scratch) -> None:
    """Fill ``scratch.predicted``, and clear ``claims``, ``pickers`` and ``nan_carrier``."""
    launch(
        arguments.kernels,
        decode_kernel,
        4 * arguments.images * blocks(arguments.anchors, tiles.DECODE.size),
        tiles.DECODE.warps,
        arguments.boxes,
        arguments.boxes.stride(0),
        arguments.images,
        arguments.anchors,
        arguments.levels,
        (scratch.predicted, scratch.claims, scratch.pickers, scratch.nan_carrier),
        R=arguments.spec.reg_max,
        LEVELS=len(arguments.pyramid.strides),
        TILE=tiles.DECODE.size,
    )
