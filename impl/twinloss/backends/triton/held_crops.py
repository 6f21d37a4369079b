"""Kernel: what the mask term reads of each slot, for slots in the order of their images (segmentation spec sections 4 and 9).

The table has a row for each field and a column for each slot. Slots of one image, and in it of one box, come to lie together; the free ones
are last.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.slots import Slots
from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import KernelArguments
from twinloss.backends.triton.geometry import ground_truth
from twinloss.backends.triton.launch import blocks, launch
from twinloss.backends.triton.mask_arguments import MaskArguments
from twinloss.backends.triton.mask_pixels import pixels_between

FIELDS = 9
"""First and end column, first and end row, image, row of the batch, anchor, index in an index map, bits of the box's share of the image."""


@dataclass(frozen=True)
class HeldCrops:
    """The held anchors with the crops of their boxes.

    Attributes:
        table: (FIELDS, S) int32; the crop of a box without area is empty.
        first: (B + 1,) int64, where each image's slots begin in the table; the last is n, the number of held anchors.
    """

    table: Tensor
    first: Tensor

    def common(self, masks: MaskArguments) -> tuple[Any, ...]:
        """Arguments that the kernels of the mask term begin with."""
        pixels = masks.strided_coefficients, masks.strided_prototypes, masks.strided_masks, masks.grids
        return *pixels, self.table, self.first, self.table.shape[1], masks.prototypes.shape[0]


@triton.jit(do_not_specialize=["slot_count"])
def held_crops_kernel(
    slot_count: tl.tensor,
    truth: tl.tuple,
    slots: tl.tuple,
    places: tl.tensor,
    grids: tl.tuple,
    keys: tl.tensor,
    table: tl.tensor,
    INDEX_MAPS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Fill one tile of the table, in the order of the slots, and the keys by which to sort: image, then row; the largest if it is free."""
    slot_anchor, slot_owner = slots
    slot = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    here = slot < slot_count
    owner = tl.load(slot_owner + slot, mask=here, other=-1)
    held = owner >= 0
    row = tl.where(held, owner, 0)
    image, _, box, _ = ground_truth(row, held, truth, False)
    rows, columns = grids[0], grids[1]
    x1, x2 = pixels_between(box[0], box[2], truth[5], columns)
    y1, y2 = pixels_between(box[1], box[3], truth[6], rows)
    across = tl.div_rn(box[2] - box[0], truth[5] + tl.zeros_like(box[0]))
    down = tl.div_rn(box[3] - box[1], truth[6] + tl.zeros_like(box[0]))
    area = across * down
    positive = held & (area > 0)
    index = tl.load(places + row, mask=held, other=0).to(tl.int32) + 1 if INDEX_MAPS else tl.zeros_like(row)
    anchor = tl.load(slot_anchor + slot, mask=held, other=0)
    plane = slot_count.to(tl.int64)
    tl.store(keys + slot, tl.where(held, (image.to(tl.int64) << 32) | row.to(tl.int64), 0x7FFFFFFFFFFFFFFF), mask=here)
    tl.store(table + slot, tl.where(positive, x1, 0), mask=here)
    tl.store(table + plane + slot, tl.where(positive, x2, 0), mask=here)
    tl.store(table + 2 * plane + slot, tl.where(positive, y1, 0), mask=here)
    tl.store(table + 3 * plane + slot, tl.where(positive, y2, 0), mask=here)
    tl.store(table + 4 * plane + slot, image, mask=here)
    tl.store(table + 5 * plane + slot, row, mask=here)
    tl.store(table + 6 * plane + slot, anchor, mask=here)
    tl.store(table + 7 * plane + slot, index, mask=here)
    tl.store(table + 8 * plane + slot, area.to(tl.int32, bitcast=True), mask=here)


def held_crops(arguments: KernelArguments, masks: MaskArguments, slots: Slots) -> HeldCrops:
    """The held crops of the slots, which have their owners."""
    count, device = slots.anchor.shape[0], slots.anchor.device
    keys = torch.empty(count, dtype=torch.int64, device=device)
    table = torch.empty(FIELDS, count, dtype=torch.int32, device=device)
    launch(
        arguments.kernels,
        held_crops_kernel,
        blocks(count, tiles.HELD_CROPS.size),
        tiles.HELD_CROPS.warps,
        count,
        arguments.truth,
        (slots.anchor, slots.owner),
        masks.places,
        masks.grids,
        keys,
        table,
        INDEX_MAPS=masks.index_maps,
        TILE=tiles.HELD_CROPS.size,
    )
    ordered, order = keys.sort(stable=True)
    return HeldCrops(table.index_select(1, order), torch.searchsorted(ordered, first_keys(arguments.images, device)))


@lru_cache(maxsize=32)
def first_keys(images: int, device: torch.device) -> Tensor:
    """(B + 1,) the least key that a slot of each image can have, and one above all."""
    return torch.arange(images + 1, device=device) << 32
