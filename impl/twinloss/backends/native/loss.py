"""The loss through the compiled kernels, differentiable."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from twinloss.assignment import Assignment
from twinloss.backends.call import Call, Evaluation
from twinloss.backends.native.arguments import (
    HOST,
    Targets,
    address,
    empty_assignment,
    given,
    kernel_arguments,
    point_to,
    scratch,
    side_by_side,
)
from twinloss.backends.native.library import STORAGE, KernelArguments, load
from twinloss.backends.saved_tensors import save, saved


def evaluate(call: Call, assignment: Assignment | None = None) -> Evaluation:
    """The loss through the kernels, on its own assignment or a given one; neighbouring anchors of the logits lie side by side."""
    targets = Targets.of(call.batch, call.spec)
    arguments = kernel_arguments(call.boxes, call.scores, targets, call.spec, call.pyramid, call.conflicts)
    held = _assign(arguments, call.scores.dtype) if assignment is None else given(arguments, assignment)
    loss, items = _NativeLoss.apply(call.boxes, call.scores, arguments, targets, held)
    return Evaluation(loss, items, lambda: held)


def assign(call: Call) -> Assignment:
    """The assignment alone."""
    targets = Targets.of(call.batch, call.spec)
    return _assign(kernel_arguments(call.boxes, call.scores, targets, call.spec, call.pyramid, call.conflicts), call.scores.dtype)


def _assign(arguments: KernelArguments, dtype: torch.dtype) -> Assignment:
    library, held = load(), empty_assignment(arguments)
    memory = scratch(library.twinloss_scratch_of_assignment(ctypes.byref(arguments)))
    count = library.twinloss_assign(ctypes.byref(arguments), STORAGE[dtype], memory.data_ptr(), ctypes.byref(address(held)))
    return Assignment(held.image[:count], held.anchor[:count], held.box[:count], held.weight[:count])


class _NativeLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, boxes: Tensor, scores: Tensor, arguments: KernelArguments, targets: Targets, held: Assignment
    ) -> tuple[Tensor, Tensor]:
        library = load()
        memory = scratch(library.twinloss_scratch_of_terms(ctypes.byref(arguments), len(held)))
        found = torch.empty(4, dtype=torch.float32, device=HOST)
        where = ctypes.byref(arguments), STORAGE[scores.dtype]
        library.twinloss_terms(*where, memory.data_ptr(), ctypes.byref(address(held)), len(held), found.data_ptr())
        save(ctx, boxes=boxes, scores=scores)
        # All else that the backward pass reads is nobody else's.
        ctx.arguments, ctx.targets, ctx.held, ctx.normaliser = arguments, targets, held, float(found[3])
        items = found[:3].clone()
        ctx.mark_non_differentiable(items)
        ctx.set_materialize_grads(False)
        return items * len(scores), items

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        if incoming is None:
            return None, None, None, None, None
        boxes, scores = map(side_by_side, saved(ctx))
        arguments, held, library = KernelArguments.from_buffer_copy(ctx.arguments), ctx.held, load()
        point_to(arguments, boxes, scores)  # what was saved may have been moved and brought back, and laid out otherwise
        factors = [g * gain * len(scores) / ctx.normaliser for g, gain in zip(incoming.tolist(), arguments.gains, strict=True)]
        where, columns = (ctypes.byref(arguments), STORAGE[scores.dtype]), (ctypes.byref(address(held)), len(held))
        for_boxes = for_scores = None
        if ctx.needs_input_grad[0]:
            for_boxes = torch.empty(boxes.shape, dtype=boxes.dtype, device=HOST)
            memory = scratch(library.twinloss_scratch_of_terms(ctypes.byref(arguments), len(held)))
            library.twinloss_boxes_gradient(*where, memory.data_ptr(), *columns, factors[0], factors[2], for_boxes.data_ptr())
        if ctx.needs_input_grad[1]:
            for_scores = torch.empty(scores.shape, dtype=scores.dtype, device=HOST)
            library.twinloss_scores_gradient(*where, *columns, factors[1], for_scores.data_ptr())
        return for_boxes, for_scores, None, None, None
