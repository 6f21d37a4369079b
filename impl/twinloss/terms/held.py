"""The held anchors of a call: what terms read of an assignment.

Shape suffixes: B images, A anchors, H held anchors, D numbers of a box, X channels.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from twinloss.gather_anchors import held_columns
from twinloss.geometry.registry import GEOMETRIES

if TYPE_CHECKING:
    from twinloss.assignment.assign import Assignment
    from twinloss.backends.call import Call


class HeldAnchors:
    """An assignment with the predictions and ground truth of its anchors, in the dtype of the arithmetic.

    Args:
        call: the call.
        assignment: its assignment, or a given one.
        anchors: centres (A, 2) in grid units and strides (A,) in pixels; their dtype is that of the arithmetic.

    Attributes:
        image, anchor, row: (H,) image, anchor within it, and row of the batch, as in :class:`~twinloss.Assignment`.
        weight: (H,) soft target t, which may be 0 with ``ties="reference"``.
        centres: (H, 2) in grid units.
        strides: (H,) pixels.
    """

    def __init__(self, call: Call, assignment: Assignment, anchors: tuple[Tensor, Tensor]) -> None:
        self.call, self.spec = call, call.spec
        self.geometry = GEOMETRIES[call.spec.geometry]
        self.image, self.anchor, self.row = assignment.image, assignment.anchor, assignment.box
        self.dtype = anchors[0].dtype
        self.weight = assignment.weight.to(self.dtype)
        self.centres, self.strides = anchors[0][self.anchor], anchors[1][self.anchor]
        self._columns: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.anchor)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.call.pyramid.image_size

    @cached_property
    def pixels(self) -> Tensor:
        """Ground truth (H, D) in pixels."""
        given = self.call.batch["bboxes"][self.row].to(self.call.target_dtype)
        return self.geometry.in_pixels(given, self.image_size).to(self.dtype)

    @cached_property
    def truth(self) -> Tensor:
        """Ground truth (H, D) in grid units of the anchor's level."""
        return self.geometry.in_cells(self.pixels, self.strides)

    @cached_property
    def share(self) -> Tensor:
        """Weight (H,) in the box and distribution terms."""
        own = self.spec.anchor_weights == "own"
        return self.weight if own else torch.ones_like(self.weight) * self.weight.sum()

    @cached_property
    def normaliser(self) -> Tensor:
        """S = max(Σ t, 1), a scalar."""
        return self.weight.sum().clamp(min=1)

    @property
    def label(self) -> Tensor:
        """Class (H,) of each anchor's box."""
        return self.call.batch["cls"][self.row].to(torch.int64)

    def columns(self, key: str) -> Tensor:
        """Logits (H, X) at the held anchors of a prediction (B, X, A), differentiable: ``boxes``, or one of ``call.extras``."""
        if key not in self._columns:
            logits = self.call.boxes if key == "boxes" else self.call.extras[key]
            self._columns[key] = held_columns(logits, self.image, self.anchor).to(self.dtype)
        return self._columns[key]
