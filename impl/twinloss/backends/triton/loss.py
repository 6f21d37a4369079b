"""The loss through the fused kernels, differentiable: the door of this backend."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from twinloss.assignment import Assignment
from twinloss.backends.call import Call
from twinloss.backends.triton.arguments import Problem, Slots, make_problem
from twinloss.backends.triton.pipeline import Forward, assignment_of, backward, forward, slots_of


class FusedCall(Call):
    """A call through the kernels.

    Rows of the batch whose image or class does not exist are ignored: for a CUDA graph, pad to a fixed N with image −1.
    """

    def loss(self, assignment: Assignment | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, on its own assignment or a given one; the host never waits for the device.

        Returns:
            (3,) float32, each term times its gain and B, and the three without B, detached, by name.

        Raises:
            ValueError: the logits' dtype is not one that the kernels serve.
        """
        given = None if assignment is None else slots_of(assignment, self.boxes.device)
        loss, items = _FusedLoss.apply(self.boxes, self.scores, self._problem(), given)
        return loss, self.named(items[:3])

    def assignment(self) -> Assignment:
        """The assignment alone, as a list: its length is data, so the host waits once."""
        problem = self._problem()
        with on_device(self.boxes):
            return assignment_of(problem, forward(problem).slots)

    def _problem(self) -> Problem:
        return make_problem(self.boxes, self.scores, self.batch, self.spec, self.pyramid, self.conflicts)


def on_device(tensor: Tensor) -> AbstractContextManager[Any]:
    """Kernels go to the current device: make it the tensor's where it is another one."""
    if tensor.device.type != "cuda" or tensor.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, problem: Problem, given: Slots | None) -> tuple[Tensor, Tensor]:
        with on_device(boxes):
            result = forward(problem, given)
        slots = result.slots
        # The logits are saved although the problem has them: so changing them before the backward pass is an error, as anywhere in torch.
        ctx.save_for_backward(boxes, scores, slots.anchor, slots.owner, slots.weight, result.items)
        ctx.problem = problem
        ctx.mark_non_differentiable(result.items)
        ctx.set_materialize_grads(False)
        return result.loss, result.items

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
        if incoming is None:
            return None, None, None, None
        boxes, _scores, anchor, owner, weight, items = ctx.saved_tensors
        for_boxes, for_scores = ctx.needs_input_grad[:2]
        with on_device(boxes):
            result = Forward(loss=items, items=items, slots=Slots(anchor, owner, weight))
            gradients = backward(ctx.problem, result, incoming, for_boxes, for_scores)
        return gradients.boxes if for_boxes else None, gradients.scores if for_scores else None, None, None
