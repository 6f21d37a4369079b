"""Walks over the candidates of one ground-truth box: its picks, and its claims on anchors (spec sections 5.1 to 5.4)."""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton.alignment import alignment_metric, pair_overlap
from twinloss.backends.triton.arithmetic import index_of, is_nan, ordered_bits, ranked
from twinloss.backends.triton.geometry import anchor_place, count_candidates, ground_truth, lengthened, nth_candidate
from twinloss.backends.triton.keypoints import KEYPOINTS, PROBIOU, box_area, count_fitting, fits_level
from twinloss.backends.triton.oriented import enclosing_corners, inside_region, lengthened_region


@triton.jit
def no_best(K: tl.constexpr, K_BLOCK: tl.constexpr) -> tl.tensor:
    """Places (K_BLOCK,) for the K largest keys. Free ones are negative and distinct, so that one key replaces one place."""
    lane = tl.arange(0, K_BLOCK)
    return tl.where(lane < K, -1 - lane.to(tl.int64), 0x7FFFFFFFFFFFFFFF)  # lanes beyond K are never the least


@triton.jit
def keep_largest(key: tl.tensor, best: tl.tensor) -> tl.tensor:
    """The largest of a tile's positive keys and of those kept so far, in no order: the tile's largest replaces the least, and so on."""
    least = tl.min(best, axis=0)
    top = tl.max(key, axis=0)
    while (top > 0) & (top > least):
        best = tl.where(best == least, top, best)
        least = tl.min(best, axis=0)
        key = tl.where(key == top, 0, key)
        top = tl.max(key, axis=0)
    return best


@triton.jit
def best_candidates(
    row: tl.tensor,
    part: tl.tensor,
    truth: tl.tuple,
    levels: tl.tuple,
    scores: tl.tensor,
    image_stride: tl.tensor,
    anchors: tl.tensor,
    scratch: tl.tuple,
    numbers: tl.tuple,
    ALPHA: tl.constexpr,
    BETA: tl.constexpr,
    K: tl.constexpr,
    K_BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    PICKERS_ONLY: tl.constexpr,
    LEVELS: tl.constexpr,
    TILE: tl.constexpr,
    OVERLAP: tl.constexpr,
    LISTED: tl.constexpr,
) -> tl.tensor:
    """Keys (K_BLOCK,) of a row's K best anchors of positive metric, the lowest index first among equals; 0 fills the free places.

    Each of PARTS parts takes every PARTS-th tile of the candidates.
    """
    overlaps, claims, nan_carrier = scratch
    below, shortest, inside_eps, overlap_eps = numbers
    image, label, box, valid = ground_truth(row, row >= 0, truth, OVERLAP == PROBIOU)
    if OVERLAP == PROBIOU:
        region = lengthened_region(box, below, shortest)
        area = enclosing_corners(region)
    else:
        area = lengthened(box, below, shortest)
    total = tl.where(valid, count_candidates(area, levels, inside_eps, LEVELS), 0)
    plane = tl.cast(truth[3], tl.int64) * anchors
    if OVERLAP == KEYPOINTS:
        size = box_area(row, row >= 0, truth)
        fitting = count_fitting(area, size, levels, inside_eps, LEVELS)
    base = image.to(tl.int64) * anchors
    own_scores = scores + image.to(tl.int64) * image_stride + label.to(tl.int64) * anchors

    best = no_best(K, K_BLOCK)
    nan_seen = tl.zeros((TILE,), tl.int32)
    for start in range(part * TILE, total, PARTS * TILE):
        n = start + tl.arange(0, TILE)
        asked = n < total
        anchor = nth_candidate(n, area, levels, inside_eps, LEVELS)
        if OVERLAP == PROBIOU:
            x, y, stride = anchor_place(anchor, levels, LEVELS)
            asked = asked & inside_region(region, x * stride, y * stride)
        if OVERLAP == KEYPOINTS:
            _, _, stride = anchor_place(anchor, levels, LEVELS)
            fits = fits_level(size + 0.0 * stride, stride, levels[2][0], levels[2][LEVELS - 1])
            # A box that would lose all its candidates keeps them.
            asked = asked & (fits | (fitting + tl.zeros_like(anchor) == 0))
        overlap = pair_overlap(overlaps, plane, base + anchor, asked, row, anchor, box, truth, anchors, overlap_eps, OVERLAP, LISTED)
        metric = alignment_metric(own_scores + anchor, asked, overlap, ALPHA, BETA, OVERLAP)
        if not PICKERS_ONLY:
            tl.atomic_max(claims + base + anchor, ranked(ordered_bits(overlap), row), mask=asked & (overlap != 0), sem="relaxed")
        nan_seen = nan_seen | (asked & is_nan(metric)).to(tl.int32)
        key = tl.where(asked & (metric != 0), ranked(ordered_bits(metric), anchor), 0)
        best = keep_largest(key, best)
    tl.atomic_max(nan_carrier, tl.max(nan_seen, axis=0), mask=valid, sem="relaxed")
    return tl.where(tl.arange(0, K_BLOCK) < K, best, 0)


@triton.jit
def publish(
    row: tl.tensor,
    row_count: tl.tensor,
    best: tl.tensor,
    truth: tl.tuple,
    anchors: tl.tensor,
    scratch: tl.tuple,
    slot_anchor: tl.tensor,
    overlap_eps: tl.tensor,
    K: tl.constexpr,
    K_BLOCK: tl.constexpr,
    SECOND_TOPK: tl.constexpr,
    PICKERS_ONLY: tl.constexpr,
    OVERLAP: tl.constexpr,
    LISTED: tl.constexpr,
) -> None:
    """Store a row's picks in its slots, mark them at its anchors, and clear the memory that later launches accumulate into per row."""
    overlaps, claims, pickers, largest, ranking = scratch
    image, _, box, _ = ground_truth(row, row >= 0, truth, OVERLAP == PROBIOU)
    lane = tl.arange(0, K_BLOCK)
    picked = best > 0
    anchor = tl.where(picked, index_of(best), 0)
    plane = tl.cast(truth[3], tl.int64) * anchors
    place = image.to(tl.int64) * anchors + anchor
    tl.store(slot_anchor + row.to(tl.int64) * K + lane, tl.where(picked, anchor, -1), mask=lane < K)
    if PICKERS_ONLY:
        overlap = pair_overlap(overlaps, plane, place, picked, row, anchor, box, truth, anchors, overlap_eps, OVERLAP, LISTED)
        tl.atomic_max(claims + place, ranked(ordered_bits(overlap), row), mask=picked, sem="relaxed")
    tl.atomic_max(pickers + place, row_count - row, mask=picked, sem="relaxed")
    tl.atomic_max(pickers + plane + place, row + 1, mask=picked, sem="relaxed")
    tl.store(largest + row, 0)
    tl.store(largest + row_count + row, 0)
    if SECOND_TOPK > 0:
        for rank in tl.static_range(SECOND_TOPK):
            tl.store(ranking + row.to(tl.int64) * SECOND_TOPK + rank, 0)
