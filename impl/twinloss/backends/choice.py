"""Which backend serves a call: torch always can; the compiled ones where the logits, the definition and the machine allow."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from twinloss.backends.triton.availability import interpreting
from twinloss.backends.triton.availability import why_not as why_not_triton
from twinloss.spec import LossSpec

Backend = Literal["auto", "torch", "native", "triton"]


def choose_backend(asked: Backend, boxes: Tensor, scores: Tensor, spec: LossSpec, ties: str) -> Literal["torch", "native", "triton"]:
    """The backend that serves these logits.

    Args:
        asked: "auto" takes the Triton kernels for CUDA logits and the native ones for logits on the host, where they can serve them, and
            torch for all others; the rest is taken at its word.
        boxes: (B, 4R, A) logits.
        scores: (B, C, A) logits.
        spec: the definition.
        ties: the order among equal metrics.

    Raises:
        ValueError: a backend was asked for that cannot serve them; the message says why, and the remedy.
    """
    on_host = scores.device.type == "cpu"
    if asked == "torch" or (asked == "auto" and not on_host and interpreting()):
        return "torch"
    backend: Literal["native", "triton"] = asked if asked != "auto" else "native" if on_host else "triton"
    reason = _why_not(backend, boxes, scores, spec, ties)
    if reason is None:
        return backend
    if asked != "auto":
        raise ValueError(f"backend={asked!r} cannot serve this call: {reason}")
    if backend == "native":
        from twinloss.backends.native.availability import say_once

        say_once(reason)
    return "torch"


def _why_not(backend: Literal["native", "triton"], boxes: Tensor, scores: Tensor, spec: LossSpec, ties: str) -> str | None:
    if backend == "triton":
        return why_not_triton(scores, spec, ties)
    from twinloss.backends.native.availability import why_not

    return why_not(boxes, scores, spec, ties)
