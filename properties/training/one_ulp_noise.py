"""The reference on logits that are changed by one unit in the last place: the effect of rounding alone on a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

LOGITS = ("boxes", "scores")


def nudged(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the logits, each moved up or down to the next number of its dtype; the gradient passes through unchanged."""
    up = torch.rand(logits.shape, generator=generator) < 0.5
    with torch.no_grad():
        shift = torch.nextafter(logits, torch.where(up, torch.inf, -torch.inf).to(logits.dtype)) - logits
    return logits + shift


def nudge_all(preds: Mapping[str, Any], generator: torch.Generator) -> dict[str, Any]:
    """Returns predictions with every logit nudged, also in both sets of an end-to-end head."""
    return {
        name: nudge_all(part, generator) if isinstance(part, Mapping) else nudged(part, generator) if name in LOGITS else part
        for name, part in preds.items()
    }


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
