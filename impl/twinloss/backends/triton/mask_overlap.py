"""Kernel: how far the predicted masks of the listed anchors and the true masks of their rows agree (segmentation spec section 3.2 to 3.4).

A program compares one pair in the crop of the predicted box: it counts, and no mask is stored.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import KernelArguments, Scratch
from twinloss.backends.triton.geometry import ground_truth
from twinloss.backends.triton.launch import launch
from twinloss.backends.triton.mask_pixels import coefficients_at, first_pixel, logits, values_at
from twinloss.backends.triton.true_mask_sizes import resized_mask


@triton.jit
def predicted_crop(predicted: tl.tensor, plane: tl.tensor, scale: tl.tensor, tall: tl.tensor, wide: tl.tensor) -> tl.tuple:
    """Columns [x1, x2) and rows [y1, y2) of the prototypes' grid inside an anchor's predicted box; its numbers lie ``plane`` apart."""
    x1 = first_pixel(tl.load(predicted) * scale, wide)
    y1 = first_pixel(tl.load(predicted + plane) * scale, tall)
    x2 = first_pixel(tl.load(predicted + 2 * plane) * scale, wide)
    y2 = first_pixel(tl.load(predicted + 3 * plane) * scale, tall)
    return x1, tl.maximum(x1, x2), y1, tl.maximum(y1, y2)


@triton.jit(do_not_specialize=["scale"])
def mask_overlap_kernel(
    truth: tl.tuple,
    coefficients: tl.tuple,
    prototypes: tl.tuple,
    masks: tl.tuple,
    grids: tl.tuple,
    places: tl.tensor,
    predicted: tl.tensor,
    anchors: tl.tensor,
    scale: tl.tensor,
    listed: tl.tensor,
    sizes: tl.tensor,
    agreement: tl.tensor,
    P: tl.constexpr,
    P_BLOCK: tl.constexpr,
    LISTED: tl.constexpr,
    INDEX_MAPS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Store |∩| / max(|∪|, 1) of one pair, 0 where none is listed."""
    pair = tl.program_id(0)
    row = pair // LISTED
    anchor = tl.load(listed + pair)
    iou = 0.0
    if anchor >= 0:
        _, _, tall, wide, _, _ = grids
        image, _, _, _ = ground_truth(row, row >= 0, truth, False)
        plane = tl.cast(truth[3], tl.int64) * anchors
        x1, x2, y1, y2 = predicted_crop(predicted + image.to(tl.int64) * anchors + anchor, plane, scale, tall, wide)
        width = tl.maximum(x2 - x1, 1)
        pixels = (x2 - x1) * (y2 - y1)
        column = coefficients_at(coefficients, image, anchor, P, P_BLOCK)
        size = tl.zeros((TILE,), tl.int32)
        common = tl.zeros((TILE,), tl.int32)
        for start in range(0, pixels, TILE):
            pixel = start + tl.arange(0, TILE)
            asked = pixel < pixels
            x = x1 + pixel % width
            y = y1 + pixel // width
            values = values_at(prototypes, image, x, y, asked, grids, P, P_BLOCK, True)
            shown = asked & (logits(column, values) > 0)
            size += shown.to(tl.int32)
            common += (shown & resized_mask(masks, grids, image, row, places, x, y, shown, INDEX_MAPS)).to(tl.int32)
        joint = tl.sum(common, axis=0)
        union = tl.sum(size, axis=0) + tl.load(sizes + row) - joint
        iou = tl.div_rn(joint.to(tl.float32), tl.maximum(union, 1).to(tl.float32))
    tl.store(agreement + pair, iou)


def mask_overlap(arguments: KernelArguments, scratch: Scratch, sizes: Tensor) -> None:
    """Fill ``scratch.agreement`` from ``scratch.listed``, the predicted boxes and the true masks' sizes (N,)."""
    masks, tile = arguments.masks, tiles.MASK_OVERLAP
    assert masks is not None
    launch(
        arguments.kernels,
        mask_overlap_kernel,
        scratch.listed.numel(),
        tile.warps,
        arguments.truth,
        masks.strided_coefficients,
        masks.strided_prototypes,
        masks.strided_masks,
        masks.resizing,
        masks.places,
        scratch.predicted,
        arguments.anchors,
        masks.prototype_grid[0] / arguments.pyramid.image_size[0],
        scratch.listed,
        sizes,
        scratch.agreement,
        P=masks.channels,
        P_BLOCK=masks.channel_block,
        LISTED=arguments.listed,
        INDEX_MAPS=masks.index_maps,
        TILE=tile.size,
    )
