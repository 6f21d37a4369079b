"""The loss through the fused kernels, differentiable."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from twinloss.assignment.assign import Assignment
from twinloss.backends.call import Call, Evaluation
from twinloss.backends.saved_tensors import differentiated_once, in_memory, save, saved
from twinloss.backends.slots import Slots
from twinloss.backends.triton.arguments import KernelArguments, kernel_arguments, with_logits, without_logits
from twinloss.backends.triton.availability import computed_terms
from twinloss.backends.triton.keypoint_arguments import point_arguments
from twinloss.backends.triton.mask_arguments import mask_arguments
from twinloss.backends.triton.on_device import on_device
from twinloss.backends.triton.pipeline import assignment_of, backward, forward, slots_of
from twinloss.backends.triton.pose import pose_terms
from twinloss.backends.triton.segmentation import mask_terms
from twinloss.terms.registry import DETECTION_TERMS, in_order


def evaluate(call: Call, held: Assignment | Slots | None = None) -> Evaluation:
    """The terms that the kernels compute, on their own assignment or a given one; the host never waits for the device.

    Raises:
        ValueError: the logits' dtype is not one that the kernels serve.
    """
    given = slots_of(held) if isinstance(held, Assignment) else held
    arguments, filled = _arguments(call), list[Slots]()
    loss, items = _FusedLoss.apply(call.boxes, call.scores, _angle(call), arguments, given, filled)
    loss, items = _with_further_terms(call, arguments, filled[0], loss, items[:-1])
    return Evaluation(loss, items, lambda: held if isinstance(held, Assignment) else assignment_of(arguments, filled[0]), filled[0])


def _with_further_terms(call: Call, arguments: KernelArguments, slots: Slots, loss: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and items in the order of the computed terms, with those that segmentation or pose adds."""
    computed = computed_terms(call.spec)
    if len(loss) == len(computed):
        return loss, items
    keys: tuple[str, ...]
    if arguments.masks is not None:
        keys, added = ("mask", "semantic"), mask_terms(call, arguments, slots)
    else:
        gain_of, found_terms = dict(zip(call.spec.terms, call.spec.term_gains, strict=True)), pose_terms(call, arguments, slots)
        keys, own_items = tuple(found_terms), torch.stack([term * gain_of[key] for key, term in found_terms.items()])
        added = own_items * len(call.scores), own_items.detach()
    found = (dict(zip((*DETECTION_TERMS, *keys), (*own, *more), strict=True)) for own, more in zip((loss, items), added, strict=True))
    loss, items = (in_order(call.spec, terms) for terms in found)
    return loss, items


def assign(call: Call) -> Assignment:
    """The assignment alone, as a list: its length is data, so the host waits once."""
    arguments = _arguments(call)
    with on_device(call.boxes):
        return assignment_of(arguments, forward(arguments).slots)


def _arguments(call: Call) -> KernelArguments:
    return kernel_arguments(
        call.boxes,
        call.scores,
        call.batch,
        call.spec,
        call.pyramid,
        call.conflicts,
        _angle(call),
        masks=mask_arguments(call),
        points=point_arguments(call),
    )


def _angle(call: Call) -> Tensor | None:
    return call.extras["angle"] if call.spec.geometry == "oriented" else None


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        boxes: Tensor,
        scores: Tensor,
        angle: Tensor | None,
        arguments: KernelArguments,
        given: Slots | None,
        filled: list[Slots],
    ) -> tuple[Tensor, Tensor]:
        with on_device(boxes):
            result = forward(arguments, given)
        filled.append(result.slots)
        # The logits are saved as they were given: so changing them before the backward pass is an error, as anywhere in torch. All else
        # that is read there is nobody else's.
        save(ctx, boxes=boxes, scores=scores, **({} if angle is None else {"angle": angle}))
        # (The loss itself is not kept: it holds this very record, and neither would be freed.)
        ctx.arguments, ctx.result = without_logits(arguments), replace(result, loss=result.items)
        ctx.mark_non_differentiable(result.items)
        ctx.set_materialize_grads(False)
        return result.loss, result.items

    @staticmethod
    @differentiated_once
    def backward(ctx: Any, incoming: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
        if incoming is None:
            return (None,) * 6
        boxes, *others = (logits.detach() for logits in saved(ctx))
        for_boxes, for_scores, for_angle = ctx.needs_input_grad[:3]
        with on_device(boxes):
            arguments = with_logits(ctx.arguments, boxes, *others)
            found = backward(arguments, ctx.result, in_memory(incoming), for_boxes or for_angle, for_scores)
        wanted = zip((found.boxes, found.scores, found.angle), (for_boxes, for_scores, for_angle), strict=True)
        return *(gradient if asked else None for gradient, asked in wanted), None, None, None
