"""The loss through the compiled kernels, differentiable."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

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
from twinloss.backends.native.library import STORAGE, GradientPointers, KernelArguments, kernel
from twinloss.backends.native.masks import compared_masks
from twinloss.backends.saved_tensors import differentiated_once, save, saved


def evaluate(call: Call, assignment: Assignment | None = None) -> Evaluation:
    """The loss through the kernels, on its own assignment or a given one; neighbouring anchors of the logits lie side by side."""
    targets = Targets.of(call)
    arguments = kernel_arguments(call, targets)
    held = _assign(arguments, call) if assignment is None else given(arguments, assignment)
    logits = call.boxes, call.scores, angle_of(call)
    loss, items = _NativeLoss.apply(*logits, arguments, targets, held, call.spec.geometry, torch.is_grad_enabled())
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


class Gradients(NamedTuple):
    """By box logits (B, 4R, A), class logits (B, C, A) and angles (B, 1, A), contiguous; ``None`` for what nobody asks for."""

    boxes: Tensor | None = None
    scores: Tensor | None = None
    angle: Tensor | None = None

    @classmethod
    def empty(cls, logits: Sequence[Tensor | None], wanted: Sequence[bool]) -> Gradients:
        """Memory for the wanted gradients; those by box logits and angles are computed together."""
        of_boxes = wanted[0] or wanted[2]
        asked = zip(logits, (of_boxes, wanted[1], of_boxes), strict=True)
        return cls(*(torch.empty(x.shape, dtype=x.dtype, device=HOST) if x is not None and yes else None for x, yes in asked))

    def without(self, *, boxes: bool, scores: bool) -> Gradients:
        """The others."""
        return Gradients(None if boxes else self.boxes, None if scores else self.scores, None if boxes else self.angle)


ONCE = (1.0, 1.0, 1.0, 1.0)
"""Gradient by each term of the sum of the loss."""


def write_terms(
    arguments: KernelArguments,
    dtype: torch.dtype,
    geometry: str,
    held: Assignment,
    terms: Tensor | None,
    gradients: Gradients,
    upstream: Sequence[float] = ONCE,
) -> None:
    """Compute the terms on an assignment, and the gradients of the loss, in one pass over the logits.

    Args:
        arguments: of the call.
        dtype: of the logits and of the gradients.
        geometry: kind of boxes.
        held: the assignment.
        terms: memory of the terms times their gains, then S, (T + 1,) float32; ``None`` where the gradients alone are wanted.
        gradients: memory of the gradients.
        upstream: gradient by each term of the loss, which is the terms times the number of images.
    """
    into = GradientPointers(*(None if x is None else x.data_ptr() for x in gradients), (*upstream, 0.0)[:4])
    memory = scratch(kernel("scratch_of_terms", geometry)(ctypes.byref(arguments), len(held)))
    where = ctypes.byref(arguments), STORAGE[dtype], memory.data_ptr(), ctypes.byref(address(held)), len(held)
    kernel("terms", geometry)(*where, None if terms is None else terms.data_ptr(), ctypes.byref(into))


class _NativeLoss(torch.autograd.Function):
    """The loss. While the logits are in the caches, the forward pass computes the gradients of the loss's sum too.

    The backward pass hands them over once. Whoever asks again, or counts a term otherwise than once, has them computed again: so they are
    rounded once, whatever the upstream gradient, and a float16 gradient that only its scale keeps from 0 is not lost.
    """

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
        differentiable: bool,
    ) -> tuple[Tensor, Tensor]:
        terms = torch.empty(4 if angle is None else 5, dtype=torch.float32, device=HOST)
        wanted = ctx.needs_input_grad[:3] if differentiable else (False,) * 3
        gradients = Gradients.empty((boxes, scores, angle), wanted)
        write_terms(arguments, scores.dtype, geometry, held, terms, gradients)
        save(ctx, boxes=boxes, scores=scores, **({} if angle is None else {"angle": angle}))
        # All else that the backward pass reads is nobody else's.
        ctx.arguments, ctx.targets, ctx.held, ctx.geometry, ctx.ready = arguments, targets, held, geometry, [gradients]
        items = terms[:-1].clone()
        ctx.mark_non_differentiable(items)
        ctx.set_materialize_grads(False)
        return items * len(scores), items

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, incoming: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        if incoming is None:
            return (None,) * 8
        boxes, scores, *further = map(side_by_side, saved(ctx))
        logits = boxes, scores, further[0] if further else None
        upstream, wanted = incoming.tolist(), ctx.needs_input_grad[:3]
        try:
            gradients = ctx.ready.pop()  # in one operation: two passes at the same time are not handed the same memory
        except IndexError:
            gradients = Gradients.empty(logits, wanted)
            again = gradients
        else:
            again = gradients.without(boxes={upstream[0], *upstream[2:]} == {1.0}, scores=upstream[1] == 1.0)
        if any(x is not None for x in again):
            arguments = KernelArguments.from_buffer_copy(ctx.arguments)
            # What was saved may have been moved and brought back, and laid out otherwise.
            point_to(arguments, *logits)
            write_terms(arguments, scores.dtype, ctx.geometry, ctx.held, None, again, upstream)
        return (*gradients, *(None,) * 5)
