"""The loss through the compiled kernels, differentiable."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from twinloss.assignment.assign import Assignment
from twinloss.backends.call import Call, Evaluation
from twinloss.backends.native.arguments import (
    HOST,
    Targets,
    address,
    angle_of,
    empty_assignment,
    given,
    kernel_arguments,
    point_to,
    scratch,
    side_by_side,
)
from twinloss.backends.native.keypoints import with_keypoint_terms
from twinloss.backends.native.library import STORAGE, KernelArguments, kernel, load
from twinloss.backends.native.masks import compared_masks
from twinloss.backends.saved_tensors import save, saved


def evaluate(call: Call, assignment: Assignment | None = None) -> Evaluation:
    """The loss through the kernels, on its own assignment or a given one; neighbouring anchors of the logits lie side by side."""
    targets = Targets.of(call)
    arguments = kernel_arguments(call, targets)
    held = _assign(arguments, call) if assignment is None else given(arguments, assignment)
    loss, items = _NativeLoss.apply(call.boxes, call.scores, angle_of(call), arguments, targets, held, call.spec.geometry)
    found = Evaluation(loss, items, lambda: held)
    return found if targets.keypoints is None else with_keypoint_terms(found, call, arguments, targets, held)


def assign(call: Call) -> Assignment:
    """The assignment alone."""
    targets = Targets.of(call)
    return _assign(kernel_arguments(call, targets), call)


def _assign(arguments: KernelArguments, call: Call) -> Assignment:
    kind, held = "keypoints" if call.spec.overlap == "keypoints" else call.spec.geometry, empty_assignment(arguments)
    masks = compared_masks(call)
    arguments.masks = None if masks is None else ctypes.addressof(masks.arguments)
    memory = scratch(kernel("scratch_of_assignment", kind)(ctypes.byref(arguments)))
    where = ctypes.byref(arguments), STORAGE[call.scores.dtype], memory.data_ptr()
    count = kernel("assign", kind)(*where, ctypes.byref(address(held)))
    arguments.masks = None  # what it pointed to ends here
    return Assignment(held.image[:count], held.anchor[:count], held.box[:count], held.weight[:count])


class _NativeLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        boxes: Tensor,
        scores: Tensor,
        angle: Tensor | None,
        arguments: KernelArguments,
        targets: Targets,
        held: Assignment,
        geometry: str,
    ) -> tuple[Tensor, Tensor]:
        memory = scratch(kernel("scratch_of_terms", geometry)(ctypes.byref(arguments), len(held)))
        found = torch.empty(4 if angle is None else 5, dtype=torch.float32, device=HOST)
        where = ctypes.byref(arguments), STORAGE[scores.dtype]
        kernel("terms", geometry)(*where, memory.data_ptr(), ctypes.byref(address(held)), len(held), found.data_ptr())
        save(ctx, boxes=boxes, scores=scores, **({} if angle is None else {"angle": angle}))
        # All else that the backward pass reads is nobody else's.
        ctx.arguments, ctx.targets, ctx.held, ctx.geometry, ctx.normaliser = arguments, targets, held, geometry, float(found[-1])
        items = found[:-1].clone()
        ctx.mark_non_differentiable(items)
        ctx.set_materialize_grads(False)
        return items * len(scores), items

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        if incoming is None:
            return (None,) * 7
        boxes, scores, *further = map(side_by_side, saved(ctx))
        angle = further[0] if further else None
        arguments, held = KernelArguments.from_buffer_copy(ctx.arguments), ctx.held
        # What was saved may have been moved and brought back, and laid out otherwise.
        point_to(arguments, boxes, scores, angle)
        factors = [g * gain * len(scores) / ctx.normaliser for g, gain in zip(incoming.tolist(), arguments.gains, strict=False)]
        box, cls, dfl, turn = (*factors, 0.0)[:4]
        where, columns = (ctypes.byref(arguments), STORAGE[scores.dtype]), (ctypes.byref(address(held)), len(held))
        for_boxes = for_scores = for_angle = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[2]:
            for_boxes, for_angle = (None if x is None else torch.empty(x.shape, dtype=x.dtype, device=HOST) for x in (boxes, angle))
            memory = scratch(kernel("scratch_of_terms", ctx.geometry)(*where[:1], len(held)))
            into = (None if x is None else x.data_ptr() for x in (for_boxes, for_angle))
            kernel("boxes_gradient", ctx.geometry)(*where, memory.data_ptr(), *columns, box, dfl, turn, *into)
        if ctx.needs_input_grad[1]:
            for_scores = torch.empty(scores.shape, dtype=scores.dtype, device=HOST)
            load().twinloss_scores_gradient(*where, *columns, cls, for_scores.data_ptr())
        return for_boxes, for_scores, for_angle, None, None, None, None
