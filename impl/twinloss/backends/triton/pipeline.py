"""Launches the kernels in order, and allocates the memory between them.

Each line is one launch, with what it reads and what it writes (fields of ``Slots`` and ``Scratch``); indented lines run only if needed::

    forward()
    ├─ decode[_oriented]         box logits                        → predicted; clears claims, pickers, nan_carrier
    │  ├─ preselect              predicted, class logits, rows     → listed, if the assigner looks at masks, as the next two
    │  ├─ true_mask_sizes        true masks, rows                  → sizes
    │  └─ mask_overlap           listed, predicted, sizes, masks … → agreement
    ├─ candidates_and_softplus   predicted, class logits, rows     → slots.anchor, claims, pickers, nan_carrier, softplus sums
    │  └─ merge                  parts, if candidates are divided  → slots.anchor, pickers
    ├─ resolve                   slots.anchor, claims, pickers …   → slots.owner, metric, largest, ranking
    │  └─ second_topk            ranking, if topk2 differs from K  → frees slots.owner; largest
    ├─ held_terms                owner, metric, largest, logits    → slots.weight; sums of t and of each term
    └─ reduce_terms              all partial sums                  → loss (T,), items (T + 1,)
    backward()
    ├─ dense_gradient            class logits, incoming, items     → w·sigmoid(x) for every class logit, 0 for every box logit
    └─ held_terms_gradient       slots, logits, incoming, items    → the gradient at the held anchors, over both

Example: the batch has N = 2 rows and K = 3, so 6 slots. Row 0 picks anchors 4, 7, 9 and row 1 picks anchor 7: ``slots.anchor`` is
[4, 7, 9, 7, −1, −1], and both rows claim anchor 7. Row 1 overlaps it more, so ``resolve`` writes owner [0, 1, 0, −1, −1, −1]: the slot of
the lowest row that picked the anchor keeps it, here slot 1, and its owner is the row that wins it.

Shape suffixes: T terms, B images, C classes, N rows of the batch, K picks per row, S = N·K slots, H held anchors, P programs of a launch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from twinloss.assignment.assign import Assignment
from twinloss.backends.slots import Slots
from twinloss.backends.triton.arguments import Gradients, KernelArguments, Scratch
from twinloss.backends.triton.candidates_and_softplus import candidates_and_softplus, softplus_programs
from twinloss.backends.triton.decode import decode
from twinloss.backends.triton.decode_oriented import decode_oriented
from twinloss.backends.triton.dense_gradient import dense_gradient
from twinloss.backends.triton.held_terms import held_programs, held_terms
from twinloss.backends.triton.held_terms_gradient import held_terms_gradient
from twinloss.backends.triton.launch import kernels_for
from twinloss.backends.triton.mask_overlap import mask_overlap
from twinloss.backends.triton.merge import merge
from twinloss.backends.triton.preselect import preselect
from twinloss.backends.triton.reduce_terms import reduce_terms
from twinloss.backends.triton.resolve import resolve
from twinloss.backends.triton.second_topk import second_topk
from twinloss.backends.triton.true_mask_sizes import true_mask_sizes


@dataclass(frozen=True)
class Forward:
    """Results of the forward pass: ``loss`` (T,), ``items`` (T + 1,) as the T logged terms and S, and the slots."""

    loss: Tensor
    items: Tensor
    slots: Slots


def forward(arguments: KernelArguments, given: Slots | None = None) -> Forward:
    """Compute the loss and the slots, in five to ten launches; ``given`` slots replace the assignment."""
    device = arguments.boxes.device
    weights_C = class_weights(arguments.spec.class_weights, device)
    softplus_P = torch.empty(softplus_programs(arguments), dtype=torch.float32, device=device)
    slots, scratch = (given, None) if given is not None else (_empty_slots(arguments), _make_scratch(arguments))
    terms = len(arguments.gains)
    held_sums = torch.empty(terms + 1, held_programs(slots.anchor.shape[0]), dtype=torch.float32, device=device)
    loss = torch.empty(terms, dtype=torch.float32, device=device)
    items = torch.empty(terms + 1, dtype=torch.float32, device=device)
    if scratch is None:
        sum_softplus(arguments, weights_C, softplus_P)
    else:
        assign_slots(arguments, scratch, slots, weights_C, softplus_P)
    held_terms(arguments, scratch, slots, weights_C, held_sums)
    reduce_terms(arguments, softplus_P, held_sums, loss, items)
    return Forward(loss, items, slots)


def assign_slots(arguments: KernelArguments, scratch: Scratch, slots: Slots, weights_C: Tensor, softplus_P: Tensor) -> None:
    """Fill the anchors and owners of the slots, and the partial sums of softplus (P,)."""
    if arguments.rows:
        (decode_oriented if arguments.oriented else decode)(arguments, scratch)
        if arguments.listed:
            compare_masks(arguments, scratch)
    candidates_and_softplus(arguments, scratch, slots.anchor, weights_C, softplus_P)
    if scratch.parts.numel():
        merge(arguments, scratch, slots.anchor)
    resolve(arguments, scratch, slots)
    if arguments.second_topk:
        second_topk(arguments, scratch, slots)


def compare_masks(arguments: KernelArguments, scratch: Scratch) -> None:
    """Fill the anchors of each row whose masks are compared, and how far they agree."""
    sizes = torch.empty(arguments.rows, dtype=torch.int32, device=arguments.boxes.device)
    preselect(arguments, scratch)
    true_mask_sizes(arguments, sizes)
    mask_overlap(arguments, scratch, sizes)


def sum_softplus(arguments: KernelArguments, weights_C: Tensor, softplus_P: Tensor) -> None:
    """Fill the partial sums of softplus (P,) alone: the launch with no row of the batch."""
    no_rows = replace(arguments, batch_idx=arguments.batch_idx[:0], cls=arguments.cls[:0], bboxes=arguments.bboxes[:0])
    candidates_and_softplus(no_rows, _make_scratch(no_rows), _empty_slots(no_rows).anchor, weights_C, softplus_P)


def backward(arguments: KernelArguments, result: Forward, incoming: Tensor, for_boxes: bool, for_scores: bool) -> Gradients:
    """Compute the gradients of the box and class logits, in two launches; a gradient that is not wanted is empty.

    The angles of oriented boxes have theirs with the box logits.

    Args:
        arguments: the arguments of the forward pass.
        result: its results.
        incoming: (T,) gradient of the loss vector, on the device, of any stride.
        for_boxes: whether the gradient of the box logits is wanted.
        for_scores: whether the gradient of the class logits is wanted.
    """
    boxes, scores = arguments.boxes, arguments.scores
    gradients = Gradients(
        torch.empty(boxes.shape if for_boxes else (0,), dtype=boxes.dtype, device=boxes.device),
        torch.empty(scores.shape if for_scores else (0,), dtype=scores.dtype, device=scores.device),
        kernels_for((arguments.key, for_boxes, for_scores, incoming.data_ptr() % 16 == 0, incoming.stride(0))),
        torch.zeros_like(arguments.angle) if arguments.oriented and for_boxes else None,
    )
    weights_C = class_weights(arguments.spec.class_weights, boxes.device)
    dense_gradient(arguments, incoming, result.items, weights_C, gradients)
    held_terms_gradient(arguments, result.slots, incoming, result.items, weights_C, gradients)
    return gradients


def assignment_of(arguments: KernelArguments, slots: Slots) -> Assignment:
    """The held slots as an assignment; its length depends on values, so the host waits for the device."""
    kept_H = (slots.owner >= 0).nonzero().squeeze(1)
    owner_H, anchor_H = slots.owner[kept_H].to(torch.int64), slots.anchor[kept_H].to(torch.int64)
    image_H = arguments.batch_idx[owner_H].to(torch.int64)
    order_H = (image_H * arguments.anchors + anchor_H).argsort()
    weight_H = slots.weight[kept_H][order_H]
    return Assignment(image=image_H[order_H], anchor=anchor_H[order_H], box=owner_H[order_H], weight=weight_H)


def slots_of(assignment: Assignment) -> Slots:
    """Slots of a checked assignment; an index that does not fit 32 bits becomes one that does not exist."""
    anchor, owner = (index.clamp(-1, 2**31 - 1).to(torch.int32) for index in (assignment.anchor, assignment.box))
    return Slots(anchor, owner, assignment.weight.to(torch.float32, copy=True))


@lru_cache(maxsize=32)
def class_weights(weights: tuple[float, ...] | None, device: torch.device) -> Tensor:
    """The class weights (C,) on the device, copied once and without waiting; (0,) if the definition has none."""
    values_C = torch.tensor(weights or (), dtype=torch.float32, device="cpu")
    return values_C.pin_memory().to(device, non_blocking=True) if device.type == "cuda" and weights else values_C.to(device)


@lru_cache
def nothing(device: torch.device) -> Tensor:
    """An empty int64 tensor, in place of scratch that a call does not need."""
    return torch.empty(0, dtype=torch.int64, device=device)


def _empty_slots(arguments: KernelArguments) -> Slots:
    count, device = arguments.rows * arguments.picks, arguments.boxes.device
    # Separate allocations: the kernels rely on the alignment of an allocation.
    anchor, owner = (torch.empty(count, dtype=torch.int32, device=device) for _ in range(2))
    return Slots(anchor, owner, torch.empty(count, dtype=torch.float32, device=device))


def _make_scratch(arguments: KernelArguments) -> Scratch:
    device = arguments.boxes.device
    places = arguments.images * arguments.anchors if arguments.rows else 0
    slots, parts = arguments.rows * arguments.picks, arguments.candidates_tile.parts
    none = nothing(device)
    return Scratch(
        predicted=torch.empty(5 if arguments.oriented else 4, places, dtype=torch.float32, device=device),
        claims=torch.empty(places, dtype=torch.int64, device=device),
        pickers=torch.empty(2, places, dtype=torch.int32, device=device),
        nan_carrier=torch.empty(1, dtype=torch.int32, device=device),
        largest=torch.empty(2, arguments.rows, dtype=torch.int32, device=device),
        ranking=torch.empty(arguments.rows, arguments.second_topk, dtype=torch.int64, device=device) if arguments.second_topk else none,
        parts=torch.empty(arguments.rows, parts, arguments.picks, dtype=torch.int64, device=device) if parts > 1 else none,
        metric=torch.empty(2, slots, dtype=torch.float32, device=device),
        listed=torch.empty(arguments.rows, arguments.listed, dtype=torch.int32, device=device),
        agreement=torch.empty(arguments.rows, arguments.listed, dtype=torch.float32, device=device),
    )
