"""What the two passes of the loss's own functions share: saved with autograd, and looked at again when it comes back.

Autograd raises where something saved was changed in place. Hooks on saved tensors (offloading, compression, checkpoints) may give back
another tensor: it is an input like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def in_memory(logits: Tensor) -> Tensor:
    """Logits whose numbers lie in memory as they are; a copy where they do not, through which gradients pass.

    A view may only promise its numbers (a negative view, a tensor of zeros without memory), and one made in inference mode cannot be saved
    for a backward pass.
    """
    if logits._is_zerotensor() or (logits.is_inference() and not torch.is_inference_mode_enabled()):
        return logits.clone()
    return logits.resolve_neg()


def without_autocast(tensor: Tensor) -> AbstractContextManager[Any]:
    """Autocast is off inside; where kernels are compiled alone, on tensors without values, there is none."""
    return nullcontext() if tensor.device.type == "meta" else torch.autocast(tensor.device.type, enabled=False)


def save(ctx: Any, **tensors: Tensor) -> None:
    """Save tensors for the backward pass, and remember by name what they were."""
    ctx.save_for_backward(*tensors.values())
    ctx.was = [(name, tensor.shape, tensor.dtype, tensor.device) for name, tensor in tensors.items()]


def saved(ctx: Any) -> list[Tensor]:
    """What was saved, in its order, in any memory layout.

    Raises:
        RuntimeError: a hook gave back a tensor of another shape, dtype or device; the message names both.
    """
    found = []
    for tensor, (name, *was) in zip(ctx.saved_tensors, ctx.was, strict=True):
        now = [tensor.shape, tensor.dtype, tensor.device]
        if now != was:
            before, after = (f"{tuple(shape)} {dtype} on {device}" for shape, dtype, device in (was, now))
            raise RuntimeError(
                f"the loss saved {name} as {before} for its backward pass, and a hook on saved tensors gave back {after}; give back what "
                "was saved, for example with .to() in the unpacking hook"
            )
        found.append(in_memory(tensor))
    return found


Backward = Callable[..., Any]


def differentiated_once(backward: Backward) -> Backward:
    """A backward pass in the dtypes of its forward pass, also inside of autocast, whose results have no gradients.

    Where ``create_graph`` asks for them, differentiating the results is an error.

    Torch's own ``once_differentiable`` looks at the incoming gradients alone, which those of a plain ``loss.sum()`` pass: the results would
    be constants to whoever adds a penalty on them to the loss.
    """

    @wraps(backward)
    def passed(ctx: Any, *incoming: Tensor | None) -> Any:
        given = next((gradient for gradient in incoming if gradient is not None), None)
        with torch.no_grad(), nullcontext() if given is None else without_autocast(given):
            found = backward(ctx, *incoming)
        if not torch.is_grad_enabled():
            return found
        sources = [x for x in (*incoming, *ctx.saved_tensors) if x is not None and x.requires_grad]
        return tuple(x if x is None else _Last.apply(x, torch.zeros(0, device="cpu").requires_grad_(), *sources) for x in _tuple(found))

    return passed


def _tuple(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


class _Last(torch.autograd.Function):
    """Returns a gradient unchanged. Its sources are inputs too, so that autograd calls ``backward`` for a derivative by any of them."""

    @staticmethod
    def forward(_ctx: Any, gradient: Tensor, *_sources: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(_ctx: Any, _incoming: Tensor) -> Any:
        raise RuntimeError(
            "the loss can be differentiated once: its gradients have none of their own; for a penalty on gradients take those of another "
            "function of the predictions, such as their sum"
        )
