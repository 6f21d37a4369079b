"""The loss through the fused kernels, differentiable: the doors of this backend."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from twinloss.anchors import Pyramid
from twinloss.assign import Assignment, Conflicts
from twinloss.spec import LossSpec
from twinloss.triton.pipeline import Forward, assignment_of, backward, forward, slots_of
from twinloss.triton.problem import Problem, Slots, make_problem

Batch = Mapping[str, Tensor]


def fused_loss(
    boxes: Tensor, scores: Tensor, batch: Batch, spec: LossSpec, pyramid: Pyramid, *, conflicts: Conflicts = "overlap"
) -> tuple[Tensor, dict[str, Tensor]]:
    """The detection loss; the host never waits for the device.

    Args:
        boxes: (B, 4R, A) logits: float16, bfloat16 or float32.
        scores: (B, C, A) logits.
        batch: ``batch_idx`` (N,), ``cls`` (N,) or (N, 1), ``bboxes`` (N, 4). Rows whose image or class does not exist are ignored: for
            a CUDA graph, pad to a fixed N with image −1.
        spec: the definition.
        pyramid: the grids.
        conflicts: "overlap" or "pickers", as in :class:`twinloss.DetectionLoss`.

    Returns:
        (3,) float32, each term times its gain and B, and the three without B, detached, by name.

    Raises:
        ValueError: the logits' dtype is not one that the kernels serve.
    """
    return _evaluate(boxes, scores, make_problem(boxes, scores, batch, spec, pyramid, conflicts), None)


def fused_loss_given(
    boxes: Tensor, scores: Tensor, batch: Batch, spec: LossSpec, pyramid: Pyramid, assignment: Assignment
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss on a given assignment; arguments and result as those of :func:`fused_loss`."""
    return _evaluate(boxes, scores, make_problem(boxes, scores, batch, spec, pyramid), slots_of(assignment, boxes.device))


def fused_assign(
    boxes: Tensor, scores: Tensor, batch: Batch, spec: LossSpec, pyramid: Pyramid, *, conflicts: Conflicts = "overlap"
) -> Assignment:
    """The assignment alone, as a list: its length is data, so the host waits once."""
    problem = make_problem(boxes, scores, batch, spec, pyramid, conflicts)
    with on_device(boxes):
        return assignment_of(problem, forward(problem).slots)


def on_device(tensor: Tensor) -> AbstractContextManager[Any]:
    """Kernels go to the current device: make it the tensor's where it is another one."""
    if tensor.device.type != "cuda" or tensor.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)


def _evaluate(boxes: Tensor, scores: Tensor, problem: Problem, given: Slots | None) -> tuple[Tensor, dict[str, Tensor]]:
    loss, items = _FusedLoss.apply(boxes, scores, problem, given)
    box, classification, third, _ = items.unbind()
    return loss, {"box_loss": box, "cls_loss": classification, problem.spec.third_term: third}


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
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, incoming: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
        if incoming is None:
            return None, None, None, None
        boxes, _scores, anchor, owner, weight, items = ctx.saved_tensors
        for_boxes, for_scores = ctx.needs_input_grad[:2]
        with on_device(boxes):
            result = Forward(loss=items, items=items, slots=Slots(anchor, owner, weight))
            gradients = backward(ctx.problem, result, incoming, for_boxes, for_scores)
        return gradients.boxes if for_boxes else None, gradients.scores if for_scores else None, None, None
