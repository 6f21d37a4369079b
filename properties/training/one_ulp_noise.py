"""The reference on predictions that are changed by one unit in the last place: the effect of rounding alone on a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

PREDICTIONS = ("boxes", "scores", "mask_coefficient", "proto", "angle", "kpts", "kpts_sigma")
"""Predictions of all tasks; those of segmentation's prototypes may be a pair."""


def nudged(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the logits, each moved up or down to the next number of its dtype; the gradient passes through unchanged."""
    up = torch.rand(logits.shape, generator=generator) < 0.5
    with torch.no_grad():
        shift = torch.nextafter(logits, torch.where(up, torch.inf, -torch.inf).to(logits.dtype)) - logits
    return logits + shift


def mapped(preds: Mapping[str, Any], function: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Returns predictions after a function, also those in both sets of an end-to-end head."""

    def part(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return mapped(value, function)
        if name not in PREDICTIONS:
            return value
        return tuple(map(function, value)) if isinstance(value, tuple) else function(value)

    return {name: part(name, value) for name, value in preds.items()}


def nudge_all(preds: Mapping[str, Any], generator: torch.Generator) -> dict[str, Any]:
    """Returns predictions with every number nudged."""
    return mapped(preds, lambda part: nudged(part, generator))


class Nudged:
    """A criterion that nudges the logits in training, not in validation."""

    def __init__(self, criterion: Any, seed: int) -> None:
        self.criterion = criterion
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, preds: Any, batch: Any) -> Any:
        """Returns the criterion's answer to the nudged predictions."""
        if not torch.is_grad_enabled():
            return self.criterion(preds, batch)
        return self.criterion(nudge_all(preds, self.generator), batch)

    def __getattr__(self, name: str) -> Any:
        if name == "criterion":  # The attribute is missing while a copy is being made.
            raise AttributeError(name)
        return getattr(self.criterion, name)
