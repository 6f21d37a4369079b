"""Gradients that are lost or rounded on their way to the predictions, while the loss is right (spec section 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from oracle.contract.contender import Batch, Preds
from oracle.definition.variant import Variant
from twinloss import LossSpec

Change = Callable[[Tensor, Tensor, LossSpec], Tensor]
"""Returns a changed gradient, given the gradient, the logits and the definition; all of logits' shape (B, channels, A)."""

PLACES: dict[str, Callable[[Tensor], Tensor]] = {
    "at the last anchor": lambda gradient: gradient[..., -1:],
    "at the first anchor": lambda gradient: gradient[..., :1],
    "in the last image": lambda gradient: gradient[-1:],
    "in the first image": lambda gradient: gradient[:1],
}
LEAST = (1e-3, 1e-4, 1e-5, 1e-6, 6.1e-5, 6e-8)
"""Thresholds below which a gradient is lost; the last two are float16's smallest normal and smallest number."""


def of(name: str, change: Change) -> Callable[[Preds, Batch, LossSpec], tuple[Preds, Batch]]:
    """Returns a change of the gradient of one prediction."""

    def before(preds: Preds, batch: Batch, spec: LossSpec) -> tuple[Preds, Batch]:
        logits: Any = preds.get(name)  # batches of one task may lack a prediction, as those of pose without a flow lack deviations
        if not isinstance(logits, Tensor) or not logits.requires_grad or not torch.is_grad_enabled():
            return preds, batch
        seen = logits.view_as(logits)
        seen.register_hook(lambda gradient: change(gradient, logits.detach(), spec))
        return {**preds, name: seen}, batch

    return before


def _without(place: Callable[[Tensor], Tensor]) -> Change:
    def change(gradient: Tensor, logits: Tensor, spec: LossSpec) -> Tensor:
        left = gradient.clone()
        place(left).zero_()
        return left

    return change


def _bins(gradient: Tensor, logits: Tensor, spec: LossSpec, bin_: int) -> Tensor:
    """Loses the gradient of one bin of every side."""
    left = gradient.unflatten(1, (4, spec.reg_max)).clone()
    left[:, :, bin_] = 0
    return left.flatten(1, 2) if spec.reg_max > 1 else gradient


def _rounded(dtype: torch.dtype) -> Change:
    return lambda gradient, logits, spec: gradient.to(dtype).to(gradient.dtype)


def catalogue() -> Iterator[Variant]:
    """Yields every variant of this chapter."""
    for name in ("boxes", "scores"):
        for words, place in PLACES.items():
            yield Variant(f"no gradient of {name} {words}", "8", before=of(name, _without(place)))
        for least in LEAST:
            lost: Change = lambda g, x, s, n=least: torch.where(g.abs() < n, 0.0, g)  # type: ignore[misc]  # noqa: E731
            yield Variant(f"a gradient of {name} below {least:g} lost", "8", before=of(name, lost))
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            written = str(dtype).removeprefix("torch.")
            yield Variant(f"the gradient of {name} rounded to {written}", "8a", before=of(name, _rounded(dtype)))
        for most in (20, 40, 88):
            saturated: Change = lambda g, x, s, n=most: torch.where(x.abs() > n, 0.0, g)  # type: ignore[misc]  # noqa: E731
            yield Variant(f"no gradient of {name} where |x| > {most}", "8", before=of(name, saturated))
    yield Variant("no gradient of the last class", "8", before=of("scores", _without(lambda gradient: gradient[:, -1:])))
    yield Variant("no gradient of class 0", "8", before=of("scores", _without(lambda gradient: gradient[:, :1])))
    for words, which in (("last", -1), ("first", 0)):
        yield Variant(f"no gradient of the {words} bin", "8", before=of("boxes", lambda g, x, s, b=which: _bins(g, x, s, b)))  # type: ignore[misc]
