"""Kernel: the gradient of every class logit without its target, and zeros for every box logit (spec section 8)."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import Gradients, KernelArguments
from twinloss.backends.triton.launch import blocks, launch
from twinloss.backends.triton.softplus import logit_tile, score_blocks


# The number of box logits is specialised: zeros are written 16 bytes at a time only if the compiler knows that it is a multiple of 16.
@triton.jit(do_not_specialize=["score_programs", "classes", "images", "cls_gain"])
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
    BLOCKS: tl.constexpr,
    TILE: tl.constexpr,
    TERMS: tl.constexpr,
) -> None:
    """The first ``score_programs`` programs write w · sigmoid(x) · scale for a tile of class logits each; the others write zeros."""
    program = tl.program_id(0)
    lane = tl.arange(0, TILE)
    if program < score_programs:
        source, target, remaining, label = logit_tile(program, block, image_stride, anchors, classes, BLOCKS, TILE)
        inside = lane < remaining
        x = tl.load(scores + source + lane, mask=inside, other=0.0).to(tl.float32)
        scale = tl.div_rn(tl.load(incoming + incoming_stride) * cls_gain * images, tl.load(items + TERMS))
        if BLOCKS == "class":
            scale *= tl.load(class_weights + label)
        gradient = tl.div_rn(scale + tl.zeros_like(x), 1.0 + tl.exp(-x))
        tl.store(scores_gradient + target + lane, gradient.to(scores_gradient.dtype.element_ty), mask=inside)
    else:
        start = (program - score_programs).to(tl.int64) * TILE
        zeros = tl.zeros((TILE,), boxes_gradient.dtype.element_ty)
        tl.store(boxes_gradient + start + lane, zeros, mask=lane < box_count - start)


def dense_gradient(arguments: KernelArguments, incoming: Tensor, items: Tensor, class_weights: Tensor, gradients: Gradients) -> None:
    """Fill both gradients as if no anchor were held; ``incoming`` is (T,), of any stride. An empty gradient is skipped."""
    tile = tiles.DENSE_GRADIENT
    kind, count, length = score_blocks(arguments.scores, arguments.weighted)
    score_programs = count * blocks(length, tile.size) if gradients.scores.numel() else 0
    launch(
        gradients.kernels,
        dense_gradient_kernel,
        score_programs + blocks(gradients.boxes.numel(), tile.size),
        tile.warps,
        arguments.scores,
        arguments.scores.stride(0),
        length,
        score_programs,
        gradients.boxes.numel(),
        arguments.anchors,
        arguments.spec.num_classes,
        class_weights,
        incoming,
        incoming.stride(0),
        items,
        arguments.images,
        arguments.gains[1],
        gradients.scores,
        gradients.boxes,
        BLOCKS=kind,
        TILE=tile.size,
        TERMS=len(arguments.gains),
    )
