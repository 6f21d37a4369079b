"""The terms of segmentation through the compiled kernels, differentiable."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twinloss.backends.call import Call
from twinloss.backends.native import library
from twinloss.backends.native.arguments import HOST, scratch, side_by_side
from twinloss.backends.native.library import STORAGE, MaskArguments, SemanticArguments, load
from twinloss.backends.saved_tensors import differentiated_once, save, saved
from twinloss.inputs.checks import PLAIN
from twinloss.masks.targets import TrueMasks
from twinloss.terms import masks, semantic
from twinloss.terms.held import HeldAnchors
from twinloss.terms.masks import HeldMasks

MASK_STORAGE = {torch.uint8: 0, torch.int32: 1, torch.int64: 2, torch.float32: 3}
"""Dtypes of true masks that the kernels read; others are converted to the last, which holds their indices exactly."""

READ = {"mask": ("mask_coefficient", "proto", "masks"), "semantic": ("semantic",)}
"""Further inputs that the kernels of a term read where they lie."""


def further_term(key: str, call: Call) -> Callable[[HeldAnchors], Tensor] | None:
    """The kernels' function for a term of segmentation; ``None`` for other terms, and where an input is no plain tensor on the host."""
    inputs = [call.extras[name] for name in READ.get(key, ()) if name in call.extras]
    if key not in READ or any(type(tensor) not in PLAIN or tensor.device != HOST for tensor in inputs):
        return None
    return partial(masks.term_of_call, term=mask_term) if key == "mask" else partial(semantic.term_of_call, term=semantic_term)


def mask_term(coefficients: Tensor, prototypes: Tensor, held: HeldMasks, masks: TrueMasks) -> Tensor:
    """The mask term, as :func:`twinloss.terms.masks.mask_term`."""
    result: Tensor = _NativeMaskTerm.apply(coefficients, prototypes, held, readable(masks))
    return result


def readable(masks: TrueMasks) -> TrueMasks:
    """The same masks in a dtype and layout that the kernels read."""
    values = masks.values.view(torch.uint8) if masks.values.dtype == torch.bool else masks.values
    values = values if values.dtype in MASK_STORAGE else values.to(torch.float32)
    return TrueMasks(side_by_side(values), masks.place)


class MaskInputs(NamedTuple):
    """Predictions and masks as the kernels read them: their arguments, which hold addresses, and the tensors that those point into."""

    arguments: MaskArguments
    tensors: tuple[Tensor | None, ...]

    @classmethod
    def of(cls, coefficients: Tensor, prototypes: Tensor, masks: TrueMasks) -> MaskInputs:
        """Inputs in a layout that the kernels read, copied if they are in another."""
        coefficients, prototypes = side_by_side(coefficients), side_by_side(prototypes)
        found = MaskArguments()
        found.images, found.prototypes, found.anchors = coefficients.shape
        (found.tall, found.wide), (found.rows, found.columns), found.threads = prototypes.shape[2:], masks.grid, torch.get_num_threads()
        found.coefficients, found.grids, found.masks = (tensor.data_ptr() for tensor in (coefficients, prototypes, masks.values))
        found.coefficients_per_image, found.coefficients_per_channel = coefficients.stride()[:2]
        found.grids_per_image, found.grids_per_channel, found.grids_per_row = prototypes.stride()[:3]
        found.mask_storage, (found.masks_per_mask, found.masks_per_row) = MASK_STORAGE[masks.values.dtype], masks.values.stride()[:2]
        found.place = None if masks.place is None else masks.place.data_ptr()
        return cls(found, (coefficients, prototypes, masks.values, masks.place))


def compared_masks(call: Call) -> MaskInputs | None:
    """What the mask-aware assignment of a call compares; ``None`` for any other."""
    extras = call.extras
    if call.spec.overlap != "ciou and masks" or "masks" not in extras:
        return None
    return MaskInputs.of(extras["mask_coefficient"], extras["proto"], readable(TrueMasks.of(extras)))


def _by_box(held: HeldMasks) -> tuple[library.HeldMasks, list[Tensor]]:
    """Held anchors as the kernels read them, and the tensors that they point into."""
    groups = held.groups
    columns = [
        groups.value,
        held.image,
        held.crop.contiguous(),
        held.factor,
        groups.order,
        groups.first,
        groups.count,
        held.anchor.contiguous(),
    ]
    return library.HeldMasks(len(groups.value), len(groups.order), *(column.data_ptr() for column in columns)), columns


class _NativeMaskTerm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, prototypes: Tensor, held: HeldMasks, masks: TrueMasks) -> Tensor:
        save(ctx, coefficients=coefficients, prototypes=prototypes)
        inputs, (by_box, columns) = MaskInputs.of(coefficients, prototypes, masks), _by_box(held)
        where = ctypes.byref(inputs.arguments), ctypes.byref(by_box)
        kept, term = scratch(load().twinloss_kept_of_masks(*where)), torch.empty((), dtype=torch.float32, device=HOST)
        memory = scratch(load().twinloss_scratch_of_masks(*where, 0))
        load().twinloss_mask_term(*where, STORAGE[prototypes.dtype], memory.data_ptr(), kept.data_ptr(), term.data_ptr())
        # All of this is nobody else's. The masks are not read again: the backward pass has what it needs of them in `kept`.
        ctx.by_box, ctx.columns, ctx.kept = by_box, columns, kept
        ctx.masks = TrueMasks(masks.values.new_empty(0, *masks.grid), masks.place)
        return term

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        coefficients, prototypes = saved(ctx)
        inputs = MaskInputs.of(coefficients, prototypes, ctx.masks)
        where = ctypes.byref(inputs.arguments), ctypes.byref(ctx.by_box)
        given, wanted = (coefficients, prototypes), (True, ctx.needs_input_grad[1])  # an end-to-end head detaches its second prototypes
        into = [torch.empty(x.shape, dtype=x.dtype, device=HOST) if wants else None for x, wants in zip(given, wanted, strict=True)]
        memory, storage = scratch(load().twinloss_scratch_of_masks(*where, 1)), STORAGE[coefficients.dtype]
        pointers = (None if gradient is None else gradient.data_ptr() for gradient in into)
        load().twinloss_mask_gradients(*where, storage, memory.data_ptr(), ctx.kept.data_ptr(), float(incoming), *pointers)
        return *into, None, None


def semantic_term(logits: Tensor, classes: Tensor) -> Tensor:
    """The semantic term, as :func:`twinloss.terms.semantic.semantic_term`."""
    result: Tensor = _NativeSemanticTerm.apply(logits, classes.contiguous())
    return result


def _semantic_arguments(logits: Tensor, classes: Tensor) -> SemanticArguments:
    """Arguments that hold addresses: the tensors must outlive their use."""
    arguments = SemanticArguments(*logits.shape, torch.get_num_threads(), logits.data_ptr(), *logits.stride()[:3])
    arguments.map = classes.data_ptr()
    return arguments


class _NativeSemanticTerm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, classes: Tensor) -> Tensor:
        save(ctx, logits=logits)
        logits = side_by_side(logits)
        sums = torch.empty(*logits.shape[:2], 3, dtype=torch.float64, device=HOST)
        term = torch.empty((), dtype=torch.float32, device=HOST)
        arguments = ctypes.byref(_semantic_arguments(logits, classes))
        load().twinloss_semantic_term(arguments, STORAGE[logits.dtype], sums.data_ptr(), term.data_ptr())
        ctx.sums, ctx.classes = sums, classes
        return term

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, None]:
        (logits,) = map(side_by_side, saved(ctx))
        gradient = torch.empty(logits.shape, dtype=logits.dtype, device=HOST)
        arguments = ctypes.byref(_semantic_arguments(logits, ctx.classes))
        load().twinloss_semantic_gradient(arguments, STORAGE[logits.dtype], ctx.sums.data_ptr(), float(incoming), gradient.data_ptr())
        return gradient, None
