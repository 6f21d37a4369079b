"""What the assignment of one call starts from, for geometry and overlap policy.

Shape suffixes: B images, C classes, R bins per side, A anchors, P candidate pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.assignment.ground_truth import GroundTruth
from twinloss.geometry.base import Geometry
from twinloss.geometry.upright import UPRIGHT
from twinloss.spec import LossSpec


@dataclass(frozen=True)
class Scene:
    """Predictions, anchors and ground truth of one call.

    Attributes:
        boxes: (B, 4R, A) box logits.
        scores: (B, C, A) class logits.
        truth: the valid boxes in pixels; their dtype is that of the arithmetic.
        pyramid: the grids.
        centres: (A, 2) anchors in grid units.
        strides: (A,) pixels.
        spec: the definition.
        geometry: kind of the boxes.
        extras: further predictions and targets of the task by key, as in :class:`~twinloss.backends.call.Call`.
        batch: the rows of the batch by key, as there.
    """

    boxes: Tensor
    scores: Tensor
    truth: GroundTruth
    pyramid: Pyramid
    centres: Tensor
    strides: Tensor
    spec: LossSpec
    geometry: Geometry = UPRIGHT
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    batch: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the arithmetic."""
        return self.truth.boxes.dtype

    @property
    def num_anchors(self) -> int:
        """A."""
        return self.scores.shape[-1]

    def keys(self, box: Tensor, anchor: Tensor) -> Tensor:
        """Image · A + anchor (P,) of pairs of box, an index into the ground truth, and anchor."""
        return self.truth.image.index_select(0, box) * self.num_anchors + anchor
