"""Kernel: every picked anchor goes to one box (spec section 5.5); finds each box's largest metric and overlap (spec section 5.7).

A contested anchor has one slot in each row that picked it. The slot of the lowest of these rows keeps the anchor, and its owner becomes the
winner: a box can win an anchor that it did not pick, so that it has no slot of its own for it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.slots import Slots
from twinloss.backends.triton import tiles
from twinloss.backends.triton.alignment import alignment_metric, pair_overlap
from twinloss.backends.triton.arguments import KernelArguments, Scratch
from twinloss.backends.triton.arithmetic import index_of, ordered_bits, ranked
from twinloss.backends.triton.geometry import ground_truth
from twinloss.backends.triton.keypoints import PROBIOU
from twinloss.backends.triton.launch import blocks, launch


@triton.jit(do_not_specialize=["row_count", "overlap_eps"])
def resolve_kernel(
    row_count: tl.tensor,
    truth: tl.tuple,
    scores: tl.tensor,
    image_stride: tl.tensor,
    anchors: tl.tensor,
    scratch: tl.tuple,
    slots: tl.tuple,
    overlap_eps: tl.tensor,
    ALPHA: tl.constexpr,
    BETA: tl.constexpr,
    K: tl.constexpr,
    SECOND_TOPK: tl.constexpr,
    TILE: tl.constexpr,
    OVERLAP: tl.constexpr,
    LISTED: tl.constexpr,
) -> None:
    """Fill owner, metric and overlap of one tile of slots; the owner of a free slot is −1."""
    overlaps, claims, pickers, largest, ranking = scratch
    slot_anchor, slot_owner, slot_metric = slots
    slot = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    slot_count = row_count.to(tl.int64) * K
    inside = slot < slot_count
    row = (slot // K).to(tl.int32)
    anchor = tl.load(slot_anchor + slot, mask=inside, other=-1)
    picked = anchor >= 0
    anchor = tl.where(picked, anchor, 0)
    image = tl.load(truth[0] + row, mask=picked, other=0).to(tl.int64)
    plane = tl.cast(truth[3], tl.int64) * anchors
    place = image * anchors + anchor
    lowest = row_count - tl.load(pickers + place, mask=picked, other=0)
    highest = tl.load(pickers + plane + place, mask=picked, other=0) - 1
    kept = picked & (row == lowest)
    claim = tl.load(claims + place, mask=kept, other=0)
    # No box wins an anchor where all overlaps are 0 (spec section 9). It can have been picked with a NaN class logit.
    kept = kept & ((lowest == highest) | (claim != 0))
    owner = tl.where(kept, tl.where(lowest == highest, row, index_of(claim)), 0)

    _, label, box, _ = ground_truth(owner, kept, truth, OVERLAP == PROBIOU)
    overlap = pair_overlap(overlaps, plane, place, kept, owner, anchor, box, truth, anchors, overlap_eps, OVERLAP, LISTED)
    own_scores = scores + image * image_stride + label.to(tl.int64) * anchors
    metric = alignment_metric(own_scores + anchor, kept, overlap, ALPHA, BETA, OVERLAP)
    tl.store(slot_owner + slot, tl.where(kept, owner, -1), mask=inside)
    tl.store(slot_metric + slot, metric, mask=inside)
    tl.store(slot_metric + slot_count + slot, overlap, mask=inside)
    tl.atomic_max(largest + owner, ordered_bits(metric), mask=kept, sem="relaxed")
    if SECOND_TOPK == 0:
        tl.atomic_max(largest + row_count + owner, ordered_bits(overlap), mask=kept, sem="relaxed")
    else:
        # Place r ends with the r-th largest key in any order of execution: each place keeps the larger key and passes the lesser on.
        key = tl.where(kept, ranked(ordered_bits(metric), anchor), 0)
        for rank in tl.static_range(SECOND_TOPK):
            before = tl.atomic_max(ranking + owner.to(tl.int64) * SECOND_TOPK + rank, key, mask=key > 0, sem="relaxed")
            key = tl.where(key > 0, tl.minimum(key, before), 0)


def resolve(arguments: KernelArguments, scratch: Scratch, slots: Slots) -> None:
    """Fill ``slots.owner`` from ``slots.anchor``, and the metrics, overlaps and per-row maxima of ``scratch``."""
    spec = arguments.spec
    launch(
        arguments.kernels,
        resolve_kernel,
        blocks(slots.anchor.shape[0], tiles.RESOLVE.size),
        tiles.RESOLVE.warps,
        arguments.rows,
        arguments.truth,
        arguments.scores,
        arguments.scores.stride(0),
        arguments.anchors,
        (arguments.overlaps(scratch), scratch.claims, scratch.pickers, scratch.largest, scratch.ranking),
        (slots.anchor, slots.owner, scratch.metric),
        arguments.overlap_eps,
        ALPHA=spec.alpha,
        BETA=spec.beta,
        K=arguments.picks,
        SECOND_TOPK=arguments.second_topk,
        TILE=tiles.RESOLVE.size,
        OVERLAP=arguments.overlap,
        LISTED=arguments.listed,
    )
