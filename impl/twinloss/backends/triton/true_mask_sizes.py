"""Kernel: the number of pixels of each row's true mask on the prototypes' grid (segmentation spec sections 3.3 and 3.4)."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import KernelArguments
from twinloss.backends.triton.geometry import ground_truth
from twinloss.backends.triton.launch import launch
from twinloss.backends.triton.mask_pixels import nearest, true_mask


@triton.jit
def resized_mask(
    masks: tl.tuple,
    grids: tl.tuple,
    image: tl.tensor,
    row: tl.tensor,
    places: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    asked: tl.tensor,
    INDEX_MAPS: tl.constexpr,
) -> tl.tensor:
    """Whether a row's true mask shows at pixels of the prototypes' grid; fractions above ½ do."""
    rows, columns, _, _, quotient_y, quotient_x = grids
    index = row
    if INDEX_MAPS:
        index = tl.load(places + row).to(tl.int32) + 1
    return true_mask(masks, image, row, index, nearest(x, columns, quotient_x), nearest(y, rows, quotient_y), asked, INDEX_MAPS) > 0.5


@triton.jit
def true_mask_sizes_kernel(
    truth: tl.tuple,
    masks: tl.tuple,
    grids: tl.tuple,
    places: tl.tensor,
    sizes: tl.tensor,
    INDEX_MAPS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Store the size of one row's mask, 0 for a row that does not count."""
    _, _, tall, wide, _, _ = grids
    row = tl.program_id(0)
    image, _, _, valid = ground_truth(row, row >= 0, truth, False)
    pixels = tl.where(valid, tl.cast(tall, tl.int32) * wide, 0)
    count = tl.zeros((TILE,), tl.int32)
    for start in range(0, pixels, TILE):
        pixel = start + tl.arange(0, TILE)
        asked = pixel < pixels
        shown = resized_mask(masks, grids, image, row, places, pixel % wide, pixel // wide, asked, INDEX_MAPS)
        count += (shown & asked).to(tl.int32)
    tl.store(sizes + row, tl.sum(count, axis=0))


def true_mask_sizes(arguments: KernelArguments, sizes: Tensor) -> None:
    """Fill ``sizes`` (N,) int32."""
    masks, tile = arguments.masks, tiles.TRUE_MASK_SIZES
    assert masks is not None
    launch(
        arguments.kernels,
        true_mask_sizes_kernel,
        arguments.rows,
        tile.warps,
        arguments.truth,
        masks.strided_masks,
        masks.resizing,
        masks.places,
        sizes,
        INDEX_MAPS=masks.index_maps,
        TILE=tile.size,
    )
