"""Kernel: the second cut of end-to-end heads: each box keeps its ``topk2`` held anchors of largest metric (spec section 5.6)."""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.slots import Slots
from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import KernelArguments, Scratch
from twinloss.backends.triton.arithmetic import ordered_bits, ranked
from twinloss.backends.triton.launch import blocks, launch


@triton.jit(do_not_specialize=["row_count", "slot_count"])
def second_topk_kernel(
    row_count: tl.tensor,
    slot_count: tl.tensor,
    largest: tl.tensor,
    ranking: tl.tensor,
    slots: tl.tuple,
    SECOND_TOPK: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Free the slots of one tile that rank below ``topk2`` in their box, and find the largest overlap among the others."""
    slot_anchor, slot_owner, slot_metric = slots
    slot = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = slot < slot_count
    owner = tl.load(slot_owner + slot, mask=inside, other=-1)
    held = owner >= 0
    anchor = tl.load(slot_anchor + slot, mask=held, other=0)
    key = ranked(ordered_bits(tl.load(slot_metric + slot, mask=held, other=0.0)), anchor)
    last = tl.load(ranking + owner.to(tl.int64) * SECOND_TOPK + (SECOND_TOPK - 1), mask=held, other=0)
    remains = held & (key >= last)
    tl.store(slot_owner + slot, tl.where(remains, owner, -1), mask=inside)
    overlap = tl.load(slot_metric + slot_count + slot, mask=remains, other=0.0)
    tl.atomic_max(largest + row_count + owner, ordered_bits(overlap), mask=remains, sem="relaxed")


def second_topk(arguments: KernelArguments, scratch: Scratch, slots: Slots) -> None:
    """Set ``slots.owner`` to −1 where the second cut drops an anchor, and fill the largest overlaps of ``scratch``."""
    count = slots.anchor.shape[0]
    launch(
        arguments.kernels,
        second_topk_kernel,
        blocks(count, tiles.SECOND_TOPK.size),
        tiles.SECOND_TOPK.warps,
        arguments.rows,
        count,
        scratch.largest,
        scratch.ranking,
        (slots.anchor, slots.owner, scratch.metric),
        SECOND_TOPK=arguments.second_topk,
        TILE=tiles.SECOND_TOPK.size,
    )
