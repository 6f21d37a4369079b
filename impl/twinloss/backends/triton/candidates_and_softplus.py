"""Kernel: picks each row's K best candidate anchors, and sums softplus over the class logits, in one launch.

The duration of the picking depends on the largest box, that of the sum on memory bandwidth; in one launch they overlap. Programs with low
numbers start first, so they do the picking. If there are few rows, the candidates of a row are divided into parts, one program each.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import KernelArguments, Scratch
from twinloss.backends.triton.launch import blocks, launch, power_of_two
from twinloss.backends.triton.softplus import score_blocks, softplus_sum
from twinloss.backends.triton.topk_walk import best_candidates, publish


@triton.jit(do_not_specialize=["row_count"])
def candidates_and_softplus_kernel(
    row_count: tl.tensor,
    truth: tl.tuple,
    levels: tl.tuple,
    scores: tl.tensor,
    image_stride: tl.tensor,
    block: tl.tensor,
    anchors: tl.tensor,
    scratch: tl.tuple,
    slot_anchor: tl.tensor,
    numbers: tl.tuple,
    class_weights: tl.tensor,
    partial: tl.tensor,
    ALPHA: tl.constexpr,
    BETA: tl.constexpr,
    K: tl.constexpr,
    K_BLOCK: tl.constexpr,
    SECOND_TOPK: tl.constexpr,
    PARTS: tl.constexpr,
    PICKERS_ONLY: tl.constexpr,
    LEVELS: tl.constexpr,
    TILE: tl.constexpr,
    BLOCKS: tl.constexpr,
    GROUP: tl.constexpr,
    LOGITS: tl.constexpr,
    OVERLAP: tl.constexpr,
    LISTED: tl.constexpr,
) -> None:
    """The first ``row_count`` · PARTS programs take one part of a row's candidates each; the others sum one tile of logits each."""
    program = tl.program_id(0)
    if program < row_count * PARTS:
        overlaps, claims, pickers, nan_carrier, largest, ranking, parts = scratch
        row = program % row_count
        part = program // row_count
        walked = (overlaps, claims, nan_carrier)
        best = best_candidates(
            row,
            part,
            truth,
            levels,
            scores,
            image_stride,
            anchors,
            walked,
            numbers,
            ALPHA,
            BETA,
            K,
            K_BLOCK,
            PARTS,
            PICKERS_ONLY,
            LEVELS,
            TILE,
            OVERLAP,
            LISTED,
        )
        if PARTS == 1:
            collected = (overlaps, claims, pickers, largest, ranking)
            publish(
                row,
                row_count,
                best,
                truth,
                anchors,
                collected,
                slot_anchor,
                numbers[3],
                K,
                K_BLOCK,
                SECOND_TOPK,
                PICKERS_ONLY,
                OVERLAP,
                LISTED,
            )
        else:
            lane = tl.arange(0, K_BLOCK)
            tl.store(parts + (row.to(tl.int64) * PARTS + part) * K + lane, best, mask=lane < K)
    else:
        tile = program - row_count * PARTS
        classes = tl.cast(truth[4], tl.int32)
        total = softplus_sum(tile, scores, block, image_stride, anchors, classes, class_weights, BLOCKS, GROUP, LOGITS)
        tl.store(partial + tile, total)


def softplus_programs(arguments: KernelArguments) -> int:
    """Number of programs that sum softplus, which is the number of partial sums."""
    _, count, length = score_blocks(arguments.scores, arguments.weighted)
    return count * blocks(length, tiles.SOFTPLUS.size)


def candidates_and_softplus(
    arguments: KernelArguments, scratch: Scratch, slot_anchor: Tensor, class_weights: Tensor, partial: Tensor
) -> None:
    """Pick for every row, publish claims, and fill ``partial`` (one sum per program) with softplus.

    Picks are stored in ``slot_anchor`` (N·K,), or in ``scratch.parts`` if candidates are divided.
    """
    tile, spec = arguments.candidates_tile, arguments.spec
    kind, _, length = score_blocks(arguments.scores, arguments.weighted)
    launch(
        arguments.kernels,
        candidates_and_softplus_kernel,
        arguments.rows * tile.parts + partial.shape[0],
        tiles.SOFTPLUS.warps,
        arguments.rows,
        arguments.truth,
        arguments.levels,
        arguments.scores,
        arguments.scores.stride(0),
        length,
        arguments.anchors,
        (
            arguments.overlaps(scratch),
            *(scratch.claims, scratch.pickers, scratch.nan_carrier),
            *(scratch.largest, scratch.ranking, scratch.parts),
        ),
        slot_anchor,
        (float(spec.lengthened_below), float(spec.shortest_side), arguments.inside_eps, arguments.overlap_eps),
        class_weights,
        partial,
        ALPHA=spec.alpha,
        BETA=spec.beta,
        K=arguments.picks,
        K_BLOCK=power_of_two(arguments.picks),
        SECOND_TOPK=arguments.second_topk,
        PARTS=tile.parts,
        PICKERS_ONLY=arguments.conflicts == "pickers",
        LEVELS=len(arguments.pyramid.strides),
        TILE=tile.candidates,
        BLOCKS=kind,
        GROUP=4 if arguments.scores.element_size() == 4 else 8,
        LOGITS=tiles.SOFTPLUS.size,
        OVERLAP=arguments.overlap,
        LISTED=arguments.listed,
    )
