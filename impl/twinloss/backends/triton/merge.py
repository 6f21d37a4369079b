"""Kernel: the K best anchors of a row out of the K best of each part of its candidates; runs only if candidates are divided."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import KernelArguments, Scratch
from twinloss.backends.triton.launch import launch, power_of_two
from twinloss.backends.triton.topk_walk import publish


@triton.jit(do_not_specialize=["row_count", "overlap_eps"])
def merge_kernel(
    row_count: tl.tensor,
    truth: tl.tuple,
    anchors: tl.tensor,
    parts: tl.tensor,
    scratch: tl.tuple,
    slot_anchor: tl.tensor,
    overlap_eps: tl.tensor,
    K: tl.constexpr,
    K_BLOCK: tl.constexpr,
    KEYS: tl.constexpr,
    KEYS_BLOCK: tl.constexpr,
    SECOND_TOPK: tl.constexpr,
    PICKERS_ONLY: tl.constexpr,
    OVERLAP: tl.constexpr,
    LISTED: tl.constexpr,
) -> None:
    """Pick the K best of one row out of its KEYS keys."""
    row = tl.program_id(0)
    lane = tl.arange(0, K_BLOCK)
    index = tl.arange(0, KEYS_BLOCK)
    keys = tl.load(parts + row.to(tl.int64) * KEYS + index, mask=index < KEYS, other=0)
    best = tl.zeros((K_BLOCK,), tl.int64)
    for rank in range(K):
        top = tl.max(keys, axis=0)
        best = tl.where(lane == rank, top, best)
        keys = tl.where(keys == top, 0, keys)
    overlaps, claims, pickers, largest, ranking = scratch
    collected = (overlaps, claims, pickers, largest, ranking)
    publish(
        row, row_count, best, truth, anchors, collected, slot_anchor, overlap_eps, K, K_BLOCK, SECOND_TOPK, PICKERS_ONLY, OVERLAP, LISTED
    )


def merge(arguments: KernelArguments, scratch: Scratch, slot_anchor: Tensor) -> None:
    """Fill ``slot_anchor`` (N·K,) with the picks of every row, from ``scratch.parts`` (N, parts, K)."""
    keys = scratch.parts.shape[1] * arguments.picks
    launch(
        arguments.kernels,
        merge_kernel,
        arguments.rows,
        tiles.MERGE_WARPS,
        arguments.rows,
        arguments.truth,
        arguments.anchors,
        scratch.parts,
        (arguments.overlaps(scratch), scratch.claims, scratch.pickers, scratch.largest, scratch.ranking),
        slot_anchor,
        arguments.overlap_eps,
        K=arguments.picks,
        K_BLOCK=power_of_two(arguments.picks),
        KEYS=keys,
        KEYS_BLOCK=power_of_two(keys),
        SECOND_TOPK=arguments.second_topk,
        PICKERS_ONLY=arguments.conflicts == "pickers",
        OVERLAP=arguments.overlap,
        LISTED=arguments.listed,
    )
