"""Kernel: soft targets of the held anchors, and the sums that they add to each term (spec sections 5.7 and 7)."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from twinloss.backends.slots import Slots
from twinloss.backends.triton import tiles
from twinloss.backends.triton.arguments import KernelArguments, Scratch
from twinloss.backends.triton.arithmetic import decay, greatest, least, log1p
from twinloss.backends.triton.bins import (
    at_side,
    bin_logits,
    box_at,
    clamped,
    expected_distance,
    exponentials,
    put,
    scaled,
    target_distance,
)
from twinloss.backends.triton.geometry import anchor_place, beside_anchor, ground_truth, in_grid_units
from twinloss.backends.triton.keypoints import logarithm
from twinloss.backends.triton.launch import blocks, kernels_for, launch
from twinloss.backends.triton.oriented import oriented_losses, target_distances
from twinloss.backends.triton.overlap import ciou


@triton.jit
def soft_target(
    owner: tl.tensor,
    held: tl.tensor,
    metric: tl.tensor,
    row_count: tl.tensor,
    largest: tl.tensor,
    nan_carrier: tl.tensor,
    eps: tl.tensor,
    KEPT: tl.constexpr,
) -> tl.tensor:
    """The soft target t = m · O / (M + ε_a), of numbers that may be KEPT; NaN if any candidate's metric is NaN, 0 in a free slot."""
    most = tl.load(largest + owner, mask=held, other=0).to(tl.float32, bitcast=True)
    closest = tl.load(largest + row_count + owner, mask=held, other=0).to(tl.float32, bitcast=True)
    if KEPT:
        largest_log = logarithm(most)
        log_eps = tl.log(eps + tl.zeros_like(most))
        divisor = greatest(largest_log, log_eps) + log1p(decay(-tl.abs(largest_log - log_eps)))
        target = decay(least((logarithm(metric) - divisor) + logarithm(closest), tl.zeros_like(most)))
    else:
        target = tl.div_rn(metric * closest, most + eps)
    weight = tl.where(tl.load(nan_carrier) != 0, float("nan"), target)
    return tl.where(held, weight, 0.0)


@triton.jit
def focal_loss(logits: tl.tuple, distance: tl.tensor, limit: tl.tensor, R: tl.constexpr) -> tl.tensor:
    """Distribution focal loss (n,) of one side."""
    _, _, logarithm = exponentials(logits, R)
    lower, upper_share = clamped(distance, limit)
    at_lower = tl.zeros_like(distance)
    at_upper = tl.zeros_like(distance)
    for k in tl.static_range(R):
        at_lower = tl.where(lower == k, logits[k], at_lower)
        at_upper = tl.where(lower + 1 == k, logits[k], at_upper)
    return -((at_lower - logarithm) * (1 - upper_share) + (at_upper - logarithm) * upper_share)


@triton.jit(do_not_specialize=["row_count", "slot_count"])
def held_terms_kernel(
    row_count: tl.tensor,
    slot_count: tl.tensor,
    truth: tl.tuple,
    levels: tl.tuple,
    boxes: tl.tensor,
    box_stride: tl.tensor,
    scores: tl.tensor,
    score_stride: tl.tensor,
    anchors: tl.tensor,
    largest: tl.tensor,
    nan_carrier: tl.tensor,
    slots: tl.tuple,
    class_weights: tl.tensor,
    partial: tl.tensor,
    numbers: tl.tuple,
    angle: tl.tensor,
    angle_stride: tl.tensor,
    GIVEN: tl.constexpr,
    WEIGHTED: tl.constexpr,
    R: tl.constexpr,
    LEVELS: tl.constexpr,
    TILE: tl.constexpr,
    ORIENTED: tl.constexpr,
    KEPT: tl.constexpr,
) -> None:
    """Fill the weights of one tile of slots (unless GIVEN), and its sums of t, of box and distribution (R = 1: distance) term and w·t·x.

    Of oriented boxes it sums the angle term, too.
    """
    slot_anchor, slot_owner, slot_metric, slot_weight = slots
    slot = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = slot < slot_count
    owner = tl.load(slot_owner + slot, mask=inside, other=-1)
    if GIVEN:
        # The host did not check the values of a given assignment: slots whose row or anchor does not exist are freed.
        anchor = tl.load(slot_anchor + slot, mask=inside, other=-1)
        owner = tl.where((owner < row_count) & (anchor >= 0) & (anchor < anchors), owner, -1)
        weight = tl.load(slot_weight + slot, mask=owner >= 0, other=0.0)
    else:
        metric = tl.load(slot_metric + slot, mask=inside, other=0.0)
        weight = soft_target(owner, owner >= 0, metric, row_count, largest, nan_carrier, numbers[0], KEPT)
        tl.store(slot_weight + slot, weight, mask=inside)
        # An anchor whose soft target is 0 is not held. A metric that is kept is above 0, even if its target underflows.
        owner = tl.where((weight <= 0) & (KEPT == 0), -1, owner)
    tl.store(slot_owner + slot, owner, mask=inside)
    held = (owner >= 0) & (weight != 0)

    image, label, box, _ = ground_truth(owner, held, truth, ORIENTED)
    anchor = tl.load(slot_anchor + slot, mask=held, other=0)
    x, y, stride = anchor_place(anchor, levels, LEVELS)
    if ORIENTED:
        box = beside_anchor(box, x, y, stride)
        targets = target_distances(box)
    else:
        box = in_grid_units(box, stride)
    column = boxes + image.to(tl.int64) * box_stride + anchor
    dfl = tl.zeros((TILE,), tl.float32)
    distances = (dfl, dfl, dfl, dfl)
    for side in range(4):
        logits = bin_logits(column, held, anchors, side, R)
        distance = expected_distance(logits, R)
        distances = put(distances, side, distance)
        target = at_side(targets, side) if ORIENTED else target_distance(x, y, box, side)
        if R == 1:
            dfl += tl.abs(scaled(distance, stride, side, truth) - scaled(target, stride, side, truth))
        else:
            dfl += focal_loss(logits, target, numbers[2], R)
    dfl *= 0.25
    if ORIENTED:
        loss, turn = oriented_losses(
            distances, angle + image.to(tl.int64) * angle_stride + anchor, held, box, numbers[3], numbers[1], numbers[4]
        )
        tl.store(partial + 4 * tl.num_programs(0) + tl.program_id(0), tl.sum(tl.where(held, turn * weight, 0.0), axis=0))
    else:
        loss = 1 - ciou(box_at(x, y, distances), box, numbers[1])

    own_score = scores + image.to(tl.int64) * score_stride + label.to(tl.int64) * anchors + anchor
    logit = tl.load(own_score, mask=held, other=0.0).to(tl.float32)
    if WEIGHTED:
        logit *= tl.load(class_weights + label, mask=held, other=0.0)
    program, programs = tl.program_id(0), tl.num_programs(0)
    tl.store(partial + program, tl.sum(weight, axis=0))
    tl.store(partial + programs + program, tl.sum(tl.where(held, loss * weight, 0.0), axis=0))
    tl.store(partial + 2 * programs + program, tl.sum(tl.where(held, dfl * weight, 0.0), axis=0))
    tl.store(partial + 3 * programs + program, tl.sum(tl.where(held, logit * weight, 0.0), axis=0))


def held_programs(slot_count: int) -> int:
    """Number of programs for ``slot_count`` slots, which is the number of partial sums of each quantity."""
    return blocks(slot_count, tiles.HELD_TERMS.size)


def held_terms(arguments: KernelArguments, scratch: Scratch | None, slots: Slots, class_weights: Tensor, partial: Tensor) -> None:
    """Fill ``partial`` (4, programs), of oriented boxes (5, programs), with the partial sums over the held anchors.

    The weights are computed from ``scratch``, where the assignment wrote; if it is ``None``, ``slots.weight`` holds them already.
    """
    spec, unused = arguments.spec, slots.weight
    launch(
        arguments.kernels if scratch else kernels_for((arguments.key, "given")),
        held_terms_kernel,
        held_programs(slots.anchor.shape[0]),
        tiles.HELD_TERMS.warps,
        arguments.rows,
        slots.anchor.shape[0],
        arguments.truth,
        arguments.levels,
        arguments.boxes,
        arguments.boxes.stride(0),
        arguments.scores,
        arguments.scores.stride(0),
        arguments.anchors,
        scratch.largest if scratch else unused,
        scratch.nan_carrier if scratch else unused,
        (slots.anchor, slots.owner, scratch.metric if scratch else unused, slots.weight),
        class_weights,
        partial,
        (spec.assign_eps, arguments.overlap_eps, spec.largest_target, *arguments.angle_numbers),
        arguments.angle,
        arguments.angle.stride(0),
        GIVEN=scratch is None,
        WEIGHTED=arguments.weighted,
        R=spec.reg_max,
        LEVELS=len(arguments.pyramid.strides),
        TILE=tiles.HELD_TERMS.size,
        ORIENTED=arguments.oriented,
        KEPT=spec.overlap == "keypoints",
    )
