"""Kernel: every anchor's predicted oriented box in pixels (oriented spec section 4); it also clears the memory of later launches.

It takes the place of :mod:`~twinloss.backends.triton.decode`: the centre of an oriented box depends on all four sides and its angle, so
that one program decodes them all.
"""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import KernelArguments, Scratch
from twinloss.backends.triton.bins import bin_logits, expected_distance, put
from twinloss.backends.triton.geometry import anchor_place
from twinloss.backends.triton.launch import blocks, launch
from twinloss.backends.triton.oriented import oriented_box_at


@triton.jit(do_not_specialize=["images"])
def decode_oriented_kernel(
    boxes: tl.tensor,
    image_stride: tl.tensor,
    angle: tl.tensor,
    angle_stride: tl.tensor,
    images: tl.tensor,
    anchors: tl.tensor,
    levels: tl.tuple,
    scratch: tl.tuple,
    R: tl.constexpr,
    LEVELS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Decode one tile of an image's anchors: a box's centre depends on all four sides and its angle."""
    predicted, claims, pickers, nan_carrier = scratch
    program = tl.program_id(0)
    per_image = tl.cdiv(anchors, TILE)
    image = (program // per_image).to(tl.int64)
    anchor = (program % per_image) * TILE + tl.arange(0, TILE)
    asked = anchor < anchors
    none = tl.zeros((TILE,), tl.float32)
    distances = (none, none, none, none)
    for side in range(4):
        logits = bin_logits(boxes + image * image_stride + anchor, asked, anchors, side, R)
        distances = put(distances, side, expected_distance(logits, R))
    turned = tl.load(angle + image * angle_stride + anchor, mask=asked, other=0.0).to(tl.float32)
    x, y, stride = anchor_place(anchor, levels, LEVELS)
    box = oriented_box_at(x, y, distances, turned)

    plane = images.to(tl.int64) * anchors
    place = image * anchors + anchor
    for number in tl.static_range(4):
        tl.store(predicted + number * plane + place, box[number] * stride, mask=asked)
    tl.store(predicted + 4 * plane + place, box[4], mask=asked)
    tl.store(claims + place, tl.zeros((TILE,), tl.int64), mask=asked)
    tl.store(pickers + place, tl.zeros((TILE,), tl.int32), mask=asked)
    tl.store(pickers + plane + place, tl.zeros((TILE,), tl.int32), mask=asked)
    tl.store(nan_carrier, 0, mask=program == 0)


def decode_oriented(arguments: KernelArguments, scratch: Scratch) -> None:
    """Fill ``scratch.predicted``, and clear ``claims``, ``pickers`` and ``nan_carrier``."""
    launch(
        arguments.kernels,
        decode_oriented_kernel,
        arguments.images * blocks(arguments.anchors, tiles.DECODE.size),
        tiles.DECODE.warps,
        arguments.boxes,
        arguments.boxes.stride(0),
        arguments.angle,
        arguments.angle.stride(0),
        arguments.images,
        arguments.anchors,
        arguments.levels,
        (scratch.predicted, scratch.claims, scratch.pickers, scratch.nan_carrier),
        R=arguments.spec.reg_max,
        LEVELS=len(arguments.pyramid.strides),
        TILE=tiles.DECODE.size,
    )
