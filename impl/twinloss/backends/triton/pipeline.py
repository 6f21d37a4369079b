"""The launches in their order, and the memory between them: forward to slots and sums, backward to dense gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from twinloss.assignment import Assignment
from twinloss.backends.triton.arguments import Gradients, KernelArguments, Scratch, Slots
from twinloss.backends.triton.candidates_and_softplus import candidates_and_softplus, softplus_programs
from twinloss.backends.triton.decode import decode
from twinloss.backends.triton.dense_gradient import dense_gradient
from twinloss.backends.triton.held_terms import held_programs, held_terms
from twinloss.backends.triton.held_terms_gradient import held_terms_gradient
from twinloss.backends.triton.launch import kernels_for
from twinloss.backends.triton.merge import merge
from twinloss.backends.triton.reduce_terms import reduce_terms
from twinloss.backends.triton.resolve import resolve
from twinloss.backends.triton.second_topk import second_topk


@dataclass(frozen=True)
class Forward:
    """What the forward pass leaves: ``loss`` (3,), ``items`` (4,) as the three logged terms and S, and the slots."""

    loss: Tensor
    items: Tensor
    slots: Slots


def forward(arguments: KernelArguments, given: Slots | None = None) -> Forward:
    """Loss and held slots, in five to seven launches; ``given`` slots replace the assignment."""
    device = arguments.boxes.device
    weights = class_weights(arguments.spec.class_weights, device)
    softplus_partial = torch.empty(softplus_programs(arguments), dtype=torch.float32, device=device)
    slots, scratch = (given, None) if given is not None else (_empty_slots(arguments), _make_scratch(arguments))
    held_partial = torch.empty(4, held_programs(slots.anchor.shape[0]), dtype=torch.float32, device=device)
    loss = torch.empty(3, dtype=torch.float32, device=device)
    items = torch.empty(4, dtype=torch.float32, device=device)
    if scratch is None:
        sum_softplus(arguments, weights, softplus_partial)
    else:
        assign_slots(arguments, scratch, slots, weights, softplus_partial)
    held_terms(arguments, scratch, slots, weights, held_partial)
    reduce_terms(arguments, softplus_partial, held_partial, loss, items)
    return Forward(loss, items, slots)


def assign_slots(arguments: KernelArguments, scratch: Scratch, slots: Slots, weights: Tensor, softplus_partial: Tensor) -> None:
    """Anchors and owners of the slots; softplus is summed on the way."""
    if arguments.rows:
        decode(arguments, scratch)
    candidates_and_softplus(arguments, scratch, slots.anchor, weights, softplus_partial)
    if scratch.parts.numel():
        merge(arguments, scratch, slots.anchor)
    resolve(arguments, scratch, slots)
    if arguments.second_topk:
        second_topk(arguments, scratch, slots)


def sum_softplus(arguments: KernelArguments, weights: Tensor, softplus_partial: Tensor) -> None:
    """The scan without a row to walk."""
    no_rows = replace(arguments, batch_idx=arguments.batch_idx[:0], cls=arguments.cls[:0], bboxes=arguments.bboxes[:0])
    candidates_and_softplus(no_rows, _make_scratch(no_rows), _empty_slots(no_rows).anchor, weights, softplus_partial)


def backward(arguments: KernelArguments, result: Forward, incoming: Tensor, for_boxes: bool, for_scores: bool) -> Gradients:
    """Gradients of the box and class logits, in two launches; one that is not asked for is empty.

    Args:
        problem: the inputs of the forward pass.
        result: what it left.
        incoming: (3,) gradient of the loss vector, on the device, of any stride.
        for_boxes: whether the box logits' gradient is asked for.
        for_scores: whether the class logits' is.
    """
    boxes, scores = arguments.boxes, arguments.scores
    gradients = Gradients(
        torch.empty(boxes.shape if for_boxes else (0,), dtype=boxes.dtype, device=boxes.device),
        torch.empty(scores.shape if for_scores else (0,), dtype=scores.dtype, device=scores.device),
        kernels_for((arguments.key, for_boxes, for_scores, incoming.data_ptr() % 16 == 0, incoming.stride(0))),
    )
    weights = class_weights(arguments.spec.class_weights, boxes.device)
    dense_gradient(arguments, incoming, result.items, weights, gradients)
    held_terms_gradient(arguments, result.slots, incoming, result.items, weights, gradients)
    return gradients


def assignment_of(arguments: KernelArguments, slots: Slots) -> Assignment:
    """The slots with weight as a list; its length is data, so that the host waits for the device."""
    with_weight = (slots.owner >= 0) & ~(slots.weight <= 0)
    kept = with_weight.nonzero().squeeze(1)
    owner, anchor = slots.owner[kept].to(torch.int64), slots.anchor[kept].to(torch.int64)
    image = arguments.batch_idx[owner].to(torch.int64)
    order = (image * arguments.anchors + anchor).argsort()
    return Assignment(image=image[order], anchor=anchor[order], box=owner[order], weight=slots.weight[kept][order])


def slots_of(assignment: Assignment) -> Slots:
    """Slots that hold an admitted assignment; an index that 32 bits cannot hold becomes one that does not exist."""
    anchor, owner = (index.clamp(-1, 2**31 - 1).to(torch.int32) for index in (assignment.anchor, assignment.box))
    return Slots(anchor, owner, assignment.weight.to(torch.float32, copy=True))


@lru_cache(maxsize=32)
def class_weights(weights: tuple[float, ...] | None, device: torch.device) -> Tensor:
    """The class weights on the device, sent once and without waiting; empty for none."""
    values = torch.tensor(weights or (), dtype=torch.float32, device="cpu")
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" and weights else values.to(device)


@lru_cache
def nothing(device: torch.device) -> Tensor:
    """An empty tensor of keys, in place of scratch that a call does not need."""
    return torch.empty(0, dtype=torch.int64, device=device)


def _empty_slots(arguments: KernelArguments) -> Slots:
    count, device = arguments.rows * arguments.picks, arguments.boxes.device
    # One by one: the kernels count on the alignment that an allocation has.
    anchor, owner = (torch.empty(count, dtype=torch.int32, device=device) for _ in range(2))
    return Slots(anchor, owner, torch.empty(count, dtype=torch.float32, device=device))


def _make_scratch(arguments: KernelArguments) -> Scratch:
    device = arguments.boxes.device
    places = arguments.images * arguments.anchors if arguments.rows else 0
    slots, parts = arguments.rows * arguments.picks, arguments.candidates_tile.parts
    none = nothing(device)
    return Scratch(
        predicted=torch.empty(4, places, dtype=torch.float32, device=device),
        claims=torch.empty(places, dtype=torch.int64, device=device),
        pickers=torch.empty(2, places, dtype=torch.int32, device=device),
        nan_carrier=torch.empty(1, dtype=torch.int32, device=device),
        largest=torch.empty(2, arguments.rows, dtype=torch.int32, device=device),
        ranking=torch.empty(arguments.rows, arguments.second_topk, dtype=torch.int64, device=device) if arguments.second_topk else none,
        parts=torch.empty(arguments.rows, parts, arguments.picks, dtype=torch.int64, device=device) if parts > 1 else none,
        metric=torch.empty(2, slots, dtype=torch.float32, device=device),
    )
