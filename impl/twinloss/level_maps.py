"""The older layout of predictions, brought into the current one (spec section 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Predictions = Mapping[str, Any]


def predictions_from_maps(maps: Sequence[Tensor], num_classes: int, reg_max: int) -> dict[str, Any]:
    """Predictions in the current layout from a list of per-level maps, as heads returned them until 8.3.x.

    Args:
        maps: one (B, 4R + C, H_l, W_l) per level, box channels first.
        num_classes: C.
        reg_max: R.

    Returns:
        A mapping with ``boxes`` (B, 4R, A), ``scores`` (B, C, A) and ``feats``, the maps themselves.

    Raises:
        ValueError: a map has not 4R + C channels.
    """
    channels = 4 * reg_max + num_classes
    for level, features in enumerate(maps):
        if features.ndim != 4 or features.shape[1] != channels:
            raise ValueError(
                f"map of level {level} has shape {tuple(features.shape)}; expected (B, {channels}, H, W): "
                f"4 sides x {reg_max} bins + {num_classes} classes"
            )
    flat = torch.cat([features.flatten(2) for features in maps], dim=2)
    boxes, scores = flat.split([4 * reg_max, num_classes], dim=1)
    return {"boxes": boxes, "scores": scores, "feats": list(maps)}
