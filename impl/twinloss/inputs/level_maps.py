"""Converts predictions from the older layout, a list of per-level maps, to the current one (spec section 1).

Shape suffixes: B images, X channels, C classes, A anchors.
"""

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
        ValueError: a map does not have 4R + C channels.

    Example:
        >>> preds = predictions_from_maps([torch.zeros(2, 67, 4, 4), torch.zeros(2, 67, 2, 2)], num_classes=3, reg_max=16)
        >>> tuple(preds["boxes"].shape), tuple(preds["scores"].shape)
        ((2, 64, 20), (2, 3, 20))
    """
    channels = 4 * reg_max + num_classes
    for level, features in enumerate(maps):
        if features.ndim != 4 or features.shape[1] != channels:
            raise ValueError(
                f"map of level {level} has shape {tuple(features.shape)}; expected (B, {channels}, H, W): "
                f"4 sides x {reg_max} bins + {num_classes} classes"
            )
    flat_BXA = torch.cat([features.flatten(2) for features in maps], dim=2)
    boxes_BXA, scores_BCA = flat_BXA.split([4 * reg_max, num_classes], dim=1)
    return {"boxes": boxes_BXA, "scores": scores_BCA, "feats": list(maps)}
