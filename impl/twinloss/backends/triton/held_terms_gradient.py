"""Kernel: the gradients at the held anchors, written over the dense ones (spec section 8).

At most one slot holds an anchor, so each element of a gradient has one writer.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.slots import Slots
from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import Gradients, KernelArguments
from twinloss.backends.triton.arithmetic import reciprocal, sigmoid
from twinloss.backends.triton.bins import (
    at_side,
    bin_logits,
    box_at,
    clamped,
    expectation,
    expected_distance,
    exponentials,
    put,
    scaled,
    target_distance,
)
from twinloss.backends.triton.geometry import anchor_place, beside_anchor, ground_truth, in_grid_units
from twinloss.backends.triton.launch import blocks, launch
from twinloss.backends.triton.oriented import oriented_gradient, target_distances
from twinloss.backends.triton.overlap import ciou_gradient


@triton.jit
def write_bins(
    place: tl.tensor,
    held: tl.tensor,
    anchors: tl.tensor,
    logits: tl.tuple,
    by_distance: tl.tensor,
    by_focal_loss: tl.tensor,
    target: tl.tensor,
    limit: tl.tensor,
    R: tl.constexpr,
) -> None:
    """Store the gradient of one side's bins, from the derivatives by the expected distance and by the side's focal loss."""
    parts, total, _ = exponentials(logits, R)
    expected = expectation(parts, total, R)
    per_total = reciprocal(total)
    lower, upper_share = clamped(target, limit)
    step = tl.cast(anchors, tl.int64)
    for k in tl.static_range(R):
        share = parts[k] * per_total
        wanted = tl.where(lower == k, 1 - upper_share, tl.where(lower + 1 == k, upper_share, 0.0))
        gradient = by_distance * share * (k - expected) + by_focal_loss * (share - wanted)
        tl.store(place + k * step, gradient.to(place.dtype.element_ty), mask=held)


@triton.jit
def distance_gradient(predicted: tl.tensor, target: tl.tensor, stride: tl.tensor, side: tl.tensor, truth: tl.tuple) -> tl.tensor:
    """Derivative of one side's L1 distance by the predicted distance; 0 where both distances are equal."""
    apart = scaled(predicted, stride, side, truth) - scaled(target, stride, side, truth)
    sign = tl.where(apart > 0, 1.0, tl.where(apart < 0, -1.0, apart))
    return scaled(sign, stride, side, truth)


@triton.jit(do_not_specialize=["slot_count"])
def held_terms_gradient_kernel(
    slot_count: tl.tensor,
    truth: tl.tuple,
    levels: tl.tuple,
    boxes: tl.tensor,
    box_stride: tl.tensor,
    scores: tl.tensor,
    score_stride: tl.tensor,
    anchors: tl.tensor,
    slots: tl.tuple,
    class_weights: tl.tensor,
    incoming: tl.tensor,
    incoming_stride: tl.tensor,
    items: tl.tensor,
    gains: tl.tuple,
    boxes_gradient: tl.tensor,
    scores_gradient: tl.tensor,
    numbers: tl.tuple,
    angle: tl.tensor,
    angle_stride: tl.tensor,
    angle_gradient: tl.tensor,
    FOR_BOXES: tl.constexpr,
    FOR_SCORES: tl.constexpr,
    WEIGHTED: tl.constexpr,
    R: tl.constexpr,
    LEVELS: tl.constexpr,
    TILE: tl.constexpr,
    ORIENTED: tl.constexpr,
) -> None:
    """Store the gradients at one tile of slots."""
    slot_anchor, slot_owner, slot_weight = slots
    overlap_eps = numbers[0]
    clamp_limit = numbers[1]
    slot = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    owner = tl.load(slot_owner + slot, mask=slot < slot_count, other=-1)
    weight = tl.load(slot_weight + slot, mask=owner >= 0, other=0.0)
    held = (owner >= 0) & (weight != 0)
    image, label, box, _ = ground_truth(owner, held, truth, ORIENTED)
    image = image.to(tl.int64)
    anchor = tl.load(slot_anchor + slot, mask=held, other=0)
    per_normaliser = tl.div_rn(truth[3], tl.load(items + 3 + ORIENTED))

    if FOR_SCORES:
        scale = tl.load(incoming + incoming_stride) * gains[1] * per_normaliser
        offset = label.to(tl.int64) * anchors + anchor
        logit = tl.load(scores + image * score_stride + offset, mask=held, other=0.0).to(tl.float32)
        gradient = (sigmoid(logit) - weight) * scale
        if WEIGHTED:
            gradient *= tl.load(class_weights + label, mask=held, other=0.0)
        place = scores_gradient + image * tl.cast(truth[4], tl.int64) * anchors + offset
        tl.store(place, gradient.to(scores_gradient.dtype.element_ty), mask=held)

    if FOR_BOXES:
        x, y, stride = anchor_place(anchor, levels, LEVELS)
        if ORIENTED:
            box = beside_anchor(box, x, y, stride)
            targets = target_distances(box)
        else:
            box = in_grid_units(box, stride)
        column = boxes + image * box_stride + anchor
        none = tl.zeros((TILE,), tl.float32)
        distances = (none, none, none, none)
        for side in range(4):
            distances = put(distances, side, expected_distance(bin_logits(column, held, anchors, side, R), R))
        by_overlap = -weight * tl.load(incoming) * gains[0] * per_normaliser
        by_dfl = weight * tl.load(incoming + 2 * incoming_stride) * gains[2] * per_normaliser * 0.25
        if ORIENTED:
            turned = tl.load(angle + image * angle_stride + anchor, mask=held, other=0.0).to(tl.float32)
            by_angle = weight * tl.load(incoming + 3 * incoming_stride) * gains[3] * per_normaliser
            by_sides, by_turn = oriented_gradient(distances, turned, box, -by_overlap, by_angle, numbers[2], overlap_eps, numbers[3])
            tl.store(angle_gradient + image * anchors + anchor, by_turn.to(angle_gradient.dtype.element_ty), mask=held)
        else:
            x1, y1, x2, y2 = ciou_gradient(box_at(x, y, distances), box, overlap_eps)
        for side in range(4):
            # x1 and y1 decrease as the left and top distances grow, hence the sign.
            by_distance = at_side(by_sides, side) if ORIENTED else by_overlap * at_side((-x1, -y1, x2, y2), side)
            target = at_side(targets, side) if ORIENTED else target_distance(x, y, box, side)
            logits = bin_logits(column, held, anchors, side, R)
            place = boxes_gradient + (image * 4 + side) * R * anchors + anchor
            if R == 1:
                gradient = by_distance + by_dfl * distance_gradient(logits[0], target, stride, side, truth)
                tl.store(place, gradient.to(boxes_gradient.dtype.element_ty), mask=held)
            else:
                write_bins(place, held, anchors, logits, by_distance, by_dfl, target, clamp_limit, R)


def held_terms_gradient(
    arguments: KernelArguments, slots: Slots, incoming: Tensor, items: Tensor, class_weights: Tensor, gradients: Gradients
) -> None:
    """Overwrite both gradients at the held anchors; an empty gradient is skipped."""
    spec = arguments.spec
    launch(
        gradients.kernels,
        held_terms_gradient_kernel,
        blocks(slots.anchor.shape[0], tiles.HELD_TERMS_GRADIENT.size),
        tiles.HELD_TERMS_GRADIENT.warps,
        slots.anchor.shape[0],
        arguments.truth,
        arguments.levels,
        arguments.boxes,
        arguments.boxes.stride(0),
        arguments.scores,
        arguments.scores.stride(0),
        arguments.anchors,
        (slots.anchor, slots.owner, slots.weight),
        class_weights,
        incoming,
        incoming.stride(0),
        items,
        arguments.gains,
        gradients.boxes,
        gradients.scores,
        (arguments.overlap_eps, spec.largest_target, *arguments.angle_numbers),
        arguments.angle,
        arguments.angle.stride(0),
        gradients.boxes if gradients.angle is None else gradients.angle,
        FOR_BOXES=gradients.boxes.numel() > 0,
        FOR_SCORES=gradients.scores.numel() > 0,
        WEIGHTED=arguments.weighted,
        R=spec.reg_max,
        LEVELS=len(arguments.pyramid.strides),
        TILE=tiles.HELD_TERMS_GRADIENT.size,
        ORIENTED=arguments.oriented,
    )
