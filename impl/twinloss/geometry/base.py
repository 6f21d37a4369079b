"""What a kind of box must know: everything that assignment and terms ask of boxes, and nothing else that they need.

A geometry is a stateless object; :data:`twinloss.geometry.registry.GEOMETRIES` lists all by name, and ``spec.geometry`` names one. A new
one subclasses :class:`Geometry`, is entered there, and serves ground truth, candidates, assignment, and the box and distribution terms on
torch.

What two boxes have in common is a policy of its own (:class:`twinloss.assignment.overlaps.Overlap`, named by ``spec.overlap``), since tasks
with the same boxes differ in it. Most policies ask the geometry.

Shape suffixes: N rows of the batch, n boxes, D numbers of a box, P candidate pairs, u anchors to decode, H held anchors, A anchors, L
levels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.spec import LossSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twinloss.assignment.scene import Scene
    from twinloss.terms.held import HeldAnchors


@dataclass(frozen=True)
class Windows:
    """Cells inside each box on each level: first cell and number of cells, both (n, L, 2) as (x, y)."""

    first: Tensor
    count: Tensor

    @property
    def sizes(self) -> Tensor:
        """(n,) candidate anchors of each box."""
        return self.count.prod(-1).sum(-1)


class Geometry(ABC):
    """A kind of box.

    Attributes:
        name: by which ``spec.geometry`` asks for it.
        targets: what the columns of ``batch["bboxes"]`` are, in words; as many as there are.
        predictions: keys of the predictions that decoding reads.
        columns: D, numbers of a box in :attr:`GroundTruth.boxes <twinloss.GroundTruth>` and of a decoded one.
        exact_windows: whether every anchor in a box's windows is inside the box; else :meth:`inside` is asked for each pair.
    """

    name: ClassVar[str]
    targets: ClassVar[tuple[str, ...]]
    predictions: ClassVar[tuple[str, ...]]
    columns: ClassVar[int]
    exact_windows: ClassVar[bool]

    @abstractmethod
    def in_pixels(self, bboxes: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Boxes (N, D) in pixels of a batch's boxes (N, targets), divided by the image's width or height (spec section 3)."""

    @abstractmethod
    def valid(self, boxes: Tensor) -> Tensor:
        """Whether each of the boxes (N, D) takes part (spec section 3)."""

    def counted(self, boxes: Tensor) -> Tensor:
        """Whether each of the boxes (N, D) has a place in its image's order, valid or not."""
        return boxes.new_ones(len(boxes), dtype=torch.bool)

    @abstractmethod
    def in_cells(self, boxes: Tensor, strides: Tensor) -> Tensor:
        """Boxes (H, D) in pixels as boxes in grid units of levels with the strides (H,)."""

    @abstractmethod
    def windows(self, boxes: Tensor, pyramid: Pyramid, spec: LossSpec) -> Windows:
        """The smallest windows that hold all anchors inside the boxes (n, D), lengthened where they are short (spec section 5.1)."""

    def inside(self, boxes: Tensor, centres: Tensor, spec: LossSpec) -> Tensor:
        """Whether anchors with the centres (P, 2) in pixels lie inside the boxes (P, D), lengthened; asked without exact windows alone."""
        raise NotImplementedError(f"{type(self).__name__} has no exact windows and must define inside()")

    @abstractmethod
    def decode(self, scene: Scene, image: Tensor, anchor: Tensor) -> Tensor:
        """Predicted boxes (D, u) in pixels of anchors (u,), sorted by image, in the dtype of the arithmetic (spec section 4)."""

    @abstractmethod
    def decode_all(self, preds: Mapping[str, Tensor], centres: Tensor, reg_max: int) -> Tensor:
        """Predicted boxes (B, A, D) in grid units of every anchor, from predictions in the dtype of the arithmetic (spec section 4)."""

    @abstractmethod
    def overlap(self, truth: Tensor, predicted: Tensor, spec: LossSpec) -> Tensor:
        """Overlap (P,) of pairs of boxes (P, D) in pixels, as the assignment takes it before its clamp at 0 (spec sections 5.2 and 6)."""

    @abstractmethod
    def box_term(self, distances: Tensor, held: HeldAnchors) -> Tensor:
        """Σ (1 − overlap) · w of boxes predicted at the distances (H, 4) in grid units (spec section 7)."""

    @abstractmethod
    def clamped_target(self, held: HeldAnchors) -> Tensor:
        """Target distances (H, 4) in grid units for R > 1, clamped (spec section 7)."""

    @abstractmethod
    def distance_term(self, distances: Tensor, held: HeldAnchors) -> Tensor:
        """The distance term (R = 1) of predicted distances (H, 4) in grid units, summed with the weights (spec section 7)."""
