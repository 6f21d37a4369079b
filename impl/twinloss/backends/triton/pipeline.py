"""The launches in their order, and the memory between them: forward to slots and sums, backward to dense gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from twinloss.assignment import Assignment
from twinloss.backends.triton.arguments import Gradients, Problem, Scratch, Slots
from twinloss.backends.triton.cut import cut
from twinloss.backends.triton.decode import decode
from twinloss.backends.triton.dense_gradient import dense_gradient
from twinloss.backends.triton.finish import finish
from twinloss.backends.triton.held import held, held_programs
from twinloss.backends.triton.held_gradient import held_gradient
from twinloss.backends.triton.launch import kernels_for
from twinloss.backends.triton.merge import merge
from twinloss.backends.triton.resolve import resolve
from twinloss.backends.triton.scan import scan, softplus_programs


@dataclass(frozen=True)
class Forward:
    """What the forward pass leaves: ``loss`` (3,), ``items`` (4,) as the three logged terms and S, and the slots."""

    loss: Tensor
    items: Tensor
    slots: Slots


def forward(problem: Problem, given: Slots | None = None) -> Forward:
    """Loss and held slots, in five to seven launches; ``given`` slots replace the assignment."""
    device = problem.boxes.device
    weights = class_weights(problem.spec.class_weights, device)
    softplus_partial = torch.empty(softplus_programs(problem), dtype=torch.float32, device=device)
    slots, scratch = (given, None) if given is not None else (_empty_slots(problem), _make_scratch(problem))
    held_partial = torch.empty(4, held_programs(slots.anchor.shape[0]), dtype=torch.float32, device=device)
    loss = torch.empty(3, dtype=torch.float32, device=device)
    items = torch.empty(4, dtype=torch.float32, device=device)
    if scratch is None:
        sum_softplus(problem, weights, softplus_partial)
    else:
        assign_slots(problem, scratch, slots, weights, softplus_partial)
    held(problem, scratch, slots, weights, held_partial)
    finish(problem, softplus_partial, held_partial, loss, items)
    return Forward(loss, items, slots)


def assign_slots(problem: Problem, scratch: Scratch, slots: Slots, weights: Tensor, softplus_partial: Tensor) -> None:
    """Anchors and owners of the slots; softplus is summed on the way."""
    if problem.rows:
        decode(problem, scratch)
    scan(problem, scratch, slots.anchor, weights, softplus_partial)
    if scratch.parts.numel():
        merge(problem, scratch, slots.anchor)
    resolve(problem, scratch, slots)
    if problem.second_cut:
        cut(problem, scratch, slots)


def sum_softplus(problem: Problem, weights: Tensor, softplus_partial: Tensor) -> None:
    """The scan without a row to walk."""
    no_rows = replace(problem, batch_idx=problem.batch_idx[:0], cls=problem.cls[:0], bboxes=problem.bboxes[:0])
    scan(no_rows, _make_scratch(no_rows), _empty_slots(no_rows).anchor, weights, softplus_partial)


def backward(problem: Problem, result: Forward, incoming: Tensor, for_boxes: bool, for_scores: bool) -> Gradients:
    """Gradients of the box and class logits, in two launches; one that is not asked for is empty.

    Args:
        problem: the inputs of the forward pass.
        result: what it left.
        incoming: (3,) gradient of the loss vector, on the device, of any stride.
        for_boxes: whether the box logits' gradient is asked for.
        for_scores: whether the class logits' is.
    """
    boxes, scores = problem.boxes, problem.scores
    gradients = Gradients(
        torch.empty(boxes.shape if for_boxes else (0,), dtype=boxes.dtype, device=boxes.device),
        torch.empty(scores.shape if for_scores else (0,), dtype=scores.dtype, device=scores.device),
        kernels_for((problem.key, for_boxes, for_scores, incoming.data_ptr() % 16 == 0, incoming.stride(0))),
    )
    weights = class_weights(problem.spec.class_weights, boxes.device)
    dense_gradient(problem, incoming, result.items, weights, gradients)
    held_gradient(problem, result.slots, incoming, result.items, weights, gradients)
    return gradients


def assignment_of(problem: Problem, slots: Slots) -> Assignment:
    """The slots with weight as a list; its length is data, so that the host waits for the device."""
    with_weight = (slots.owner >= 0) & ~(slots.weight <= 0)
    kept = with_weight.nonzero().squeeze(1)
    owner, anchor = slots.owner[kept].to(torch.int64), slots.anchor[kept].to(torch.int64)
    image = problem.batch_idx[owner].to(torch.int64)
    order = (image * problem.anchors + anchor).argsort()
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


def _empty_slots(problem: Problem) -> Slots:
    count, device = problem.rows * problem.picks, problem.boxes.device
    # One by one: the kernels count on the alignment that an allocation has.
    anchor, owner = (torch.empty(count, dtype=torch.int32, device=device) for _ in range(2))
    return Slots(anchor, owner, torch.empty(count, dtype=torch.float32, device=device))


def _make_scratch(problem: Problem) -> Scratch:
    device = problem.boxes.device
    places = problem.images * problem.anchors if problem.rows else 0
    slots, parts = problem.rows * problem.picks, problem.scan_tile.parts
    none = nothing(device)
    return Scratch(
        predicted=torch.empty(4, places, dtype=torch.float32, device=device),
        claims=torch.empty(places, dtype=torch.int64, device=device),
        pickers=torch.empty(2, places, dtype=torch.int32, device=device),
        poison=torch.empty(1, dtype=torch.int32, device=device),
        largest=torch.empty(2, problem.rows, dtype=torch.int32, device=device),
        ranking=torch.empty(problem.rows, problem.second_cut, dtype=torch.int64, device=device) if problem.second_cut else none,
        parts=torch.empty(problem.rows, parts, problem.picks, dtype=torch.int64, device=device) if parts > 1 else none,
        metric=torch.empty(2, slots, dtype=torch.float32, device=device),
    )
