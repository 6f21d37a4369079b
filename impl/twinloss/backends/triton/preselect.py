"""Kernel: the 3K candidates of each row whose masks are compared: those that are best by their boxes (segmentation spec section 3.1)."""

from __future__ import annotations

import triton
import triton.language as tl

from twinloss.backends.triton import tiles
from twinloss.backends.triton.alignment import alignment_metric, predicted_overlap
from twinloss.backends.triton.arguments import KernelArguments, Scratch
from twinloss.backends.triton.arithmetic import index_of, ordered_bits, ranked
from twinloss.backends.triton.geometry import count_candidates, ground_truth, lengthened, nth_candidate
from twinloss.backends.triton.keypoints import CIOU
from twinloss.backends.triton.launch import launch, power_of_two
from twinloss.backends.triton.topk_walk import keep_largest, no_best


@triton.jit
def preselect_kernel(
    truth: tl.tuple,
    levels: tl.tuple,
    scores: tl.tensor,
    image_stride: tl.tensor,
    anchors: tl.tensor,
    predicted: tl.tensor,
    numbers: tl.tuple,
    listed: tl.tensor,
    ALPHA: tl.constexpr,
    BETA: tl.constexpr,
    LISTED: tl.constexpr,
    LISTED_BLOCK: tl.constexpr,
    LEVELS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """List one row's anchors of largest p^α · c^β + ε_a, the lowest first among equals, in no order; −1 fills the free places."""
    below, shortest, assign_eps, overlap_eps = numbers
    row = tl.program_id(0)
    image, label, box, valid = ground_truth(row, row >= 0, truth, False)
    area = lengthened(box, below, shortest)
    total = tl.where(valid, count_candidates(area, levels, assign_eps, LEVELS), 0)
    plane = tl.cast(truth[3], tl.int64) * anchors
    base = image.to(tl.int64) * anchors
    own_scores = scores + image.to(tl.int64) * image_stride + label.to(tl.int64) * anchors
    best = no_best(LISTED, LISTED_BLOCK)
    for start in range(0, total, TILE):
        n = start + tl.arange(0, TILE)
        asked = n < total
        anchor = nth_candidate(n, area, levels, assign_eps, LEVELS)
        overlap = predicted_overlap(predicted, plane, base + anchor, asked, box, overlap_eps, CIOU)
        quality = alignment_metric(own_scores + anchor, asked, overlap, ALPHA, BETA, CIOU) + assign_eps
        best = keep_largest(tl.where(asked, ranked(ordered_bits(quality), anchor), 0), best)
    lane = tl.arange(0, LISTED_BLOCK)
    tl.store(listed + row.to(tl.int64) * LISTED + lane, tl.where(best > 0, index_of(best), -1), mask=lane < LISTED)


def preselect(arguments: KernelArguments, scratch: Scratch) -> None:
    """Fill ``scratch.listed``."""
    spec, tile = arguments.spec, tiles.PRESELECT
    launch(
        arguments.kernels,
        preselect_kernel,
        arguments.rows,
        tile.warps,
        arguments.truth,
        arguments.levels,
        arguments.scores,
        arguments.scores.stride(0),
        arguments.anchors,
        scratch.predicted,
        (float(spec.lengthened_below), float(spec.shortest_side), spec.assign_eps, spec.ciou_eps),
        scratch.listed,
        ALPHA=spec.alpha,
        BETA=spec.beta,
        LISTED=arguments.listed,
        LISTED_BLOCK=power_of_two(arguments.listed),
        LEVELS=len(arguments.pyramid.strides),
        TILE=tile.size,
    )
