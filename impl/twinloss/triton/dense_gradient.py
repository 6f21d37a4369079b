"""Kernel: the gradient that every class logit has, and zeros for every box logit (spec section 8)."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.triton import tiles
from twinloss.triton.launch import blocks, launch
from twinloss.triton.problem import Gradients, Problem
from twinloss.triton.scan import score_blocks
from twinloss.triton.softplus import class_of, logit_tile


@triton.jit(do_not_specialize=["score_programs", "box_count", "classes", "images", "cls_gain"])
def dense_gradient_kernel(
    scores: tl.tensor,
    image_stride: tl.tensor,
    block: tl.tensor,
    score_programs: tl.tensor,
    box_count: tl.tensor,
    anchors: tl.tensor,
    classes: tl.tensor,
    class_weights: tl.tensor,
    incoming: tl.tensor,
    incoming_stride: tl.tensor,
    items: tl.tensor,
    images: tl.tensor,
    cls_gain: tl.tensor,
    scores_gradient: tl.tensor,
    boxes_gradient: tl.tensor,
    GAPS: tl.constexpr,
    WEIGHTED: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """The first ``score_programs`` programs write w · sigmoid(x) · scale for a tile of class logits each, the rest zeros for box logits."""
    program = tl.program_id(0)
    lane = tl.arange(0, TILE)
    if program < score_programs:
        index, start = logit_tile(program, block, GAPS, TILE)
        inside = lane < block - start
        x = tl.load(scores + index * image_stride + start + lane, mask=inside, other=0.0).to(tl.float32)
        scale = tl.load(incoming + incoming_stride) * cls_gain * images / tl.load(items + 3)
        gradient = scale / (1.0 + tl.exp(-x))
        if WEIGHTED:
            gradient *= tl.load(class_weights + class_of(start, TILE, anchors, classes))
        tl.store(scores_gradient + index * block + start + lane, gradient.to(scores_gradient.dtype.element_ty), mask=inside)
    else:
        start = (program - score_programs).to(tl.int64) * TILE
        zeros = tl.zeros((TILE,), boxes_gradient.dtype.element_ty)
        tl.store(boxes_gradient + start + lane, zeros, mask=lane < box_count - start)


def dense_gradient(problem: Problem, incoming: Tensor, items: Tensor, class_weights: Tensor, gradients: Gradients) -> None:
    """Fill both gradients but for the held anchors; ``incoming`` is (3,), of any stride. An empty gradient is left out."""
    tile = tiles.DENSE_GRADIENT
    count, length = score_blocks(problem.scores)
    score_programs = count * blocks(length, tile.size) if gradients.scores.numel() else 0
    launch(
        dense_gradient_kernel,
        score_programs + blocks(gradients.boxes.numel(), tile.size),
        tile.warps,
        problem.scores,
        problem.scores.stride(0),
        length,
        score_programs,
        gradients.boxes.numel(),
        problem.anchors,
        problem.spec.num_classes,
        class_weights,
        incoming,
        incoming.stride(0),
        items,
        problem.images,
        problem.gains[1],
        gradients.scores,
        gradients.boxes,
        GAPS=not problem.scores.is_contiguous(),
        WEIGHTED=problem.spec.class_weights is not None,
        TILE=tile.size,
    )
