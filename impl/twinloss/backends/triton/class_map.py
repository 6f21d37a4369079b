"""Kernel: the class that each pixel of the semantic logits is taught (segmentation spec section 5)."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import KernelArguments
from twinloss.backends.triton.launch import blocks, launch
from twinloss.backends.triton.mask_arguments import MaskArguments
from twinloss.backends.triton.mask_pixels import nearest
from twinloss.backends.triton.mask_tile import SLOTS, first_of


@triton.jit
def covered(
    masks: tl.tuple,
    batch_idx: tl.tensor,
    row_count: tl.tensor,
    image: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    asked: tl.tensor,
    INDEX_MAPS: tl.constexpr,
    SLOTS: tl.constexpr,
) -> tl.tensor:
    """Whether any instance shows at pixels (n,) of the masks' grid."""
    values, per_mask, per_row, per_column = masks
    pixel = values + y * per_row + x * per_column
    if INDEX_MAPS:
        found = asked & (tl.load(pixel + image.to(tl.int64) * per_mask, mask=asked, other=0) != 0)
    else:
        lane = tl.arange(0, SLOTS)
        found = asked & (x < 0)
        for start in range(0, row_count, SLOTS):
            own = tl.load(batch_idx + start + lane, mask=start + lane < row_count, other=-1).to(tl.float32) == image.to(tl.float32)
            place = first_of(own)
            while place < SLOTS:
                row = (start + place).to(tl.int64)
                found = found | (asked & (tl.load(pixel + row * per_mask, mask=asked, other=0) != 0))
                own = own & (lane > place)
                place = first_of(own)
    return found


@triton.jit(do_not_specialize=["row_count"])
def class_map_kernel(
    masks: tl.tuple,
    sem_masks: tl.tuple,
    shape: tl.tuple,
    batch_idx: tl.tensor,
    row_count: tl.tensor,
    classes: tl.tensor,
    class_map: tl.tensor,
    INDEX_MAPS: tl.constexpr,
    TILE: tl.constexpr,
    SLOTS: tl.constexpr,
) -> None:
    """Fill one tile of an image's map: −1 where no instance shows, and where the class does not exist."""
    rows, columns, tall, wide, quotient_y, quotient_x = shape
    pixels = tl.cast(tall, tl.int32) * wide
    per_image = tl.cdiv(pixels, TILE)
    image = tl.program_id(0) // per_image
    pixel = (tl.program_id(0) % per_image) * TILE + tl.arange(0, TILE)
    asked = pixel < pixels
    x = nearest(pixel % wide, columns, quotient_x)
    y = nearest(pixel // wide, rows, quotient_y)
    shown = covered(masks, batch_idx, row_count, image, x, y, asked, INDEX_MAPS, SLOTS)
    values, per_image_, per_row, per_column = sem_masks
    label = tl.load(values + image.to(tl.int64) * per_image_ + y * per_row + x * per_column, mask=shown, other=0).to(tl.float32)
    taught = shown & (label > -1) & (label < tl.cast(classes, tl.float32))
    tl.store(class_map + image.to(tl.int64) * pixels + pixel, tl.where(taught, label, -1.0).to(tl.int32), mask=asked)


def class_map(arguments: KernelArguments, masks: MaskArguments, semantic: Tensor, sem_masks: Tensor, into: Tensor) -> None:
    """Fill ``into`` (B, h_s, w_s) int32 for semantic logits (B, C, h_s, w_s)."""
    tile, (rows, columns), (tall, wide) = tiles.CLASS_MAP, masks.grid, semantic.shape[2:]
    launch(
        arguments.kernels,
        class_map_kernel,
        semantic.shape[0] * blocks(tall * wide, tile.size),
        tile.warps,
        masks.strided_masks,
        (sem_masks, *sem_masks.stride()),
        (rows, columns, tall, wide, rows / tall, columns / wide),
        arguments.batch_idx,
        arguments.rows,
        semantic.shape[1],
        into,
        INDEX_MAPS=masks.index_maps,
        TILE=tile.size,
        SLOTS=SLOTS,
    )
