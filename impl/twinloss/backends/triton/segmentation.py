"""The mask term and the semantic term through fused kernels, on the slots of an assignment, differentiable.

Launches, each with what it reads and what it writes; indented lines run only with semantic logits, or if a gradient is wanted::

    forward()
    ├─ held_crops                   slots' anchors and owners, rows      → table of the held anchors' crops, sorted by torch
    ├─ mask_term                    table, coefficients, prototypes      → sums of the cross-entropy, one a tile of the masks' grid
    │  ├─ class_map                 masks, sem_masks, rows               → class of each pixel of the semantic logits
    │  └─ semantic_sums             semantic logits, class map           → three sums of each image and class
    └─ reduce_mask_terms            all sums                             → loss (2,), items (2,)
    backward()
    │  ├─ mask_coefficients_gradient  table, coefficients, prototypes    → the gradient at the held anchors, over zeros
    │  ├─ mask_prototypes_gradient    table, coefficients, prototypes    → the gradient, gathered by each tile of the prototypes
    │  └─ semantic_gradient           semantic logits, class map, sums   → the gradient

Logits of masks are computed again in each pass and never stored. Between the passes remain the table, of 36 bytes a slot, the class map and
the sums. True masks are read again by the second pass, where they lie: changing them in between is an error, as changing logits is.

Example: two slots are held, of boxes 1 and 0 of one image, whose crops are columns [0, 2) and [1, 3) of the only row. The table lists box
0 first. The tile that owns pixel 1 meets both: its part of the prototypes' gradient is the coefficients of the first anchor times that
anchor's residual σ(x) − y there, plus the same of the second.

Shape suffixes: B images, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from twinloss.backends.call import Call
from twinloss.backends.saved_tensors import differentiated_once, save, saved
from twinloss.backends.slots import Slots
from twinloss.backends.triton.arguments import KernelArguments
from twinloss.backends.triton.class_map import class_map
from twinloss.backends.triton.held_crops import HeldCrops, held_crops
from twinloss.backends.triton.launch import kernels_for
from twinloss.backends.triton.mask_arguments import MaskArguments
from twinloss.backends.triton.mask_coefficients_gradient import mask_coefficients_gradient
from twinloss.backends.triton.mask_prototypes_gradient import mask_prototypes_gradient
from twinloss.backends.triton.mask_term import mask_programs, mask_term
from twinloss.backends.triton.on_device import on_device
from twinloss.backends.triton.reduce_mask_terms import reduce_mask_terms
from twinloss.backends.triton.semantic_gradient import semantic_gradient
from twinloss.backends.triton.semantic_sums import semantic_sums

Gains = tuple[float, float]


def mask_terms(call: Call, arguments: KernelArguments, slots: Slots) -> tuple[Tensor, Tensor]:
    """The mask term and the semantic term (2,), times gain and B, differentiable, and their items (2,).

    Args:
        call: the call.
        arguments: its arguments for the kernels, with those of masks.
        slots: the assignment; a slot counts if it has an owner.

    Raises:
        ValueError: there are semantic logits and held anchors, and no map of classes.
    """
    masks = arguments.masks
    assert masks is not None
    extras, gains = call.extras, dict(zip(call.spec.terms, call.spec.term_gains, strict=True))
    _check_semantic(masks, slots)
    leaves = extras["mask_coefficient"], extras["proto"], extras.get("semantic")
    loss, items = _MaskTerms.apply(*leaves, arguments, masks, slots, (gains["mask"], gains["semantic"]))
    return loss, items


def _check_semantic(masks: MaskArguments, slots: Slots) -> None:
    # It is an error only where an anchor is held: here alone the host waits.
    if masks.semantic is not None and masks.sem_masks is None and len(slots.owner) and bool((slots.owner >= 0).any()):
        raise ValueError(
            "preds['proto'] has semantic logits, and batch no 'sem_masks'; give the class of each pixel (B, h, w), or the prototypes alone"
        )


@dataclass(frozen=True)
class MaskForward:
    """Results of the forward pass: ``loss`` and ``items`` (2,), the held crops, and the map of classes and sums of the semantic term."""

    loss: Tensor
    items: Tensor
    crops: HeldCrops
    classes: Tensor
    sums: Tensor


def forward(arguments: KernelArguments, masks: MaskArguments, slots: Slots, gains: Gains) -> MaskForward:
    """Compute both terms, in three launches, or five with semantic logits, and those of a sort."""
    device = masks.prototypes.device
    crops = held_crops(arguments, masks, slots)
    partial = torch.empty(mask_programs(masks), dtype=torch.float32, device=device)
    mask_term(masks, crops, partial, arguments.kernels)
    classes, sums = _semantic(arguments, masks)
    loss, items = (torch.empty(2, dtype=torch.float32, device=device) for _ in range(2))
    reduce_mask_terms(masks, partial, sums, crops.first, gains, loss, items, arguments.kernels)
    return MaskForward(loss, items, crops, classes, sums)


def _semantic(arguments: KernelArguments, masks: MaskArguments) -> tuple[Tensor, Tensor]:
    """The map of classes (B, h_s, w_s) and the sums (B, C, 3) of the semantic term; empty if there is none."""
    semantic, sem_masks, device = masks.semantic, masks.sem_masks, masks.prototypes.device
    if semantic is None or sem_masks is None:  # without these the batch has no boxes either
        return torch.empty(0, dtype=torch.int32, device=device), torch.empty(0, 0, 3, dtype=torch.float64, device=device)
    classes = torch.empty(semantic.shape[0], *semantic.shape[2:], dtype=torch.int32, device=device)
    sums = torch.empty(*semantic.shape[:2], 3, dtype=torch.float64, device=device)
    class_map(arguments, masks, semantic, sem_masks, classes)
    semantic_sums(semantic, classes, sums, arguments.kernels)
    return classes, sums


class _MaskTerms(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        coefficients: Tensor,
        prototypes: Tensor,
        semantic: Tensor | None,
        arguments: KernelArguments,
        masks: MaskArguments,
        slots: Slots,
        gains: Gains,
    ) -> tuple[Tensor, Tensor]:
        with on_device(masks.prototypes):
            found = forward(arguments, masks, slots, gains)
        kept = {"coefficients": coefficients, "prototypes": prototypes, "masks": masks.masks}
        save(ctx, **kept, **({} if semantic is None else {"semantic": semantic}))
        ctx.masks, ctx.found, ctx.gains = _without_predictions(masks), replace(found, loss=found.items), gains
        ctx.mark_non_differentiable(found.items)
        ctx.set_materialize_grads(False)
        return found.loss, found.items

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, incoming: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        if incoming is None:
            return (None,) * 7
        coefficients, prototypes, masks, *semantic = (each.detach() for each in saved(ctx))
        arguments = replace(
            ctx.masks, coefficients=coefficients, prototypes=prototypes, masks=masks, semantic=semantic[0] if semantic else None
        )
        with on_device(prototypes):
            return *_gradients(arguments, ctx.found, ctx.gains, incoming, ctx.needs_input_grad[:3]), None, None, None, None


def _without_predictions(masks: MaskArguments) -> MaskArguments:
    """The arguments without what autograd keeps, and frees, and without the map of classes, which is not read again."""
    nothing = torch.empty(0, dtype=masks.prototypes.dtype, device=masks.prototypes.device)
    return replace(masks, coefficients=nothing, prototypes=nothing, masks=nothing, semantic=None, sem_masks=None)


def _gradients(
    masks: MaskArguments, found: MaskForward, gains: Gains, incoming: Tensor, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients by coefficients, prototypes and semantic logits, where they are wanted; ``incoming`` is (2,), of any stride."""
    kernels = kernels_for((masks.key, "mask gradients", incoming.data_ptr() % 16 == 0))
    scales = [gain * masks.prototypes.shape[0] for gain in gains]
    to_coefficients = to_prototypes = to_semantic = None
    if wanted[0]:
        to_coefficients = torch.zeros_like(masks.coefficients, memory_format=torch.contiguous_format)
        mask_coefficients_gradient(masks, found.crops, incoming, scales[0], to_coefficients, kernels)
    if wanted[1]:
        to_prototypes = torch.empty_like(masks.prototypes, memory_format=torch.contiguous_format)
        mask_prototypes_gradient(masks, found.crops, incoming, scales[0], to_prototypes, kernels)
    if wanted[2] and masks.semantic is not None:
        semantic = masks.semantic
        if not found.sums.numel():
            return to_coefficients, to_prototypes, torch.zeros_like(semantic)
        to_semantic = torch.empty_like(semantic, memory_format=torch.contiguous_format)
        semantic_gradient(semantic, found.classes, found.sums, found.crops.first, incoming, scales[1], to_semantic, kernels)
    return to_coefficients, to_prototypes, to_semantic
