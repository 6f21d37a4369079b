"""What the two passes of the loss's own functions share: saved with autograd, and looked at again when it comes back.

Autograd raises where something saved was changed in place. Hooks on saved tensors (offloading, compression, checkpoints) may give back
another tensor: it is an input like any other.
"""

from __future__ import annotations

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
