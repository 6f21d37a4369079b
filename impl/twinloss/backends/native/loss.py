"""The loss through the compiled kernels, differentiable: the door of this backend."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from twinloss.assignment import Assignment
from twinloss.backends.call import Call
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


class NativeCall(Call):
    """A call through the kernels; the logits are on the host, neighbouring anchors side by side."""

    def loss(self, assignment: Assignment | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, on its own assignment or a given one.

        Returns:
            (3,) float32, each term times its gain and B, and the three without B, detached, by name.
        """
        targets = Targets.of(self.batch, self.spec)
        problem = kernel_arguments(self.boxes, self.scores, targets, self.spec, self.pyramid, self.conflicts)
        held = self._assign(problem) if assignment is None else given(problem, assignment)
        loss, items = _NativeLoss.apply(self.boxes, self.scores, problem, targets, held)
        return loss, self.named(items)

    def assignment(self) -> Assignment:
        """The assignment alone."""
        targets = Targets.of(self.batch, self.spec)
        return self._assign(kernel_arguments(self.boxes, self.scores, targets, self.spec, self.pyramid, self.conflicts))

    def _assign(self, problem: KernelArguments) -> Assignment:
        library, held = load(), empty_assignment(problem)
        memory = scratch(library.twinloss_scratch_of_assignment(ctypes.byref(problem)))
        storage = STORAGE[self.scores.dtype]
        count = library.twinloss_assign(ctypes.byref(problem), storage, memory.data_ptr(), ctypes.byref(address(held)))
        return Assignment(held.image[:count], held.anchor[:count], held.box[:count], held.weight[:count])


class _NativeLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, boxes: Tensor, scores: Tensor, problem: KernelArguments, targets: Targets, held: Assignment
    ) -> tuple[Tensor, Tensor]:
        library = load()
        memory = scratch(library.twinloss_scratch_of_terms(ctypes.byref(problem), len(held)))
        found = torch.empty(4, dtype=torch.float32, device=HOST)
        where = ctypes.byref(problem), STORAGE[scores.dtype]
        library.twinloss_terms(*where, memory.data_ptr(), ctypes.byref(address(held)), len(held), found.data_ptr())
        save(ctx, boxes=boxes, scores=scores)
        # All else that the backward pass reads is nobody else's.
        ctx.problem, ctx.targets, ctx.held, ctx.normaliser = problem, targets, held, float(found[3])
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
        problem, held, library = KernelArguments.from_buffer_copy(ctx.problem), ctx.held, load()
        point_to(problem, boxes, scores)  # what was saved may have been moved and brought back, and laid out otherwise
        factors = [g * gain * len(scores) / ctx.normaliser for g, gain in zip(incoming.tolist(), problem.gains, strict=True)]
        where, columns = (ctypes.byref(problem), STORAGE[scores.dtype]), (ctypes.byref(address(held)), len(held))
        for_boxes = for_scores = None
        if ctx.needs_input_grad[0]:
            for_boxes = torch.empty(boxes.shape, dtype=boxes.dtype, device=HOST)
            memory = scratch(library.twinloss_scratch_of_terms(ctypes.byref(problem), len(held)))
            library.twinloss_boxes_gradient(*where, memory.data_ptr(), *columns, factors[0], factors[2], for_boxes.data_ptr())
        if ctx.needs_input_grad[1]:
            for_scores = torch.empty(scores.shape, dtype=scores.dtype, device=HOST)
            library.twinloss_scores_gradient(*where, *columns, factors[1], for_scores.data_ptr())
        return for_boxes, for_scores, None, None, None
