"""Upright boxes, four corners in pixels: the geometry of detection, segmentation and pose.

Shape suffixes as in :mod:`twinloss.geometry.base`; 4 is corners (x1, y1, x2, y2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.gather_anchors import columns_by_image
from twinloss.geometry.base import Geometry, Windows
from twinloss.geometry.corners import ciou, corners_from_distances, decode_boxes, expected_distances, pixel_corners, windows
from twinloss.spec import LossSpec
from twinloss.terms.boxes import box_term, clamped_target, distance_term

if TYPE_CHECKING:
    from twinloss.assignment.scene import Scene
    from twinloss.terms.held import HeldAnchors


class Upright(Geometry):
    """Boxes whose sides lie along the image's axes."""

    name = "upright"
    targets = ("centre x", "centre y", "width", "height")
    predictions = ("boxes",)
    columns = 4
    exact_windows = True

    def in_pixels(self, bboxes: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Corners (N, 4)."""
        return pixel_corners(bboxes, image_size)

    def valid(self, boxes: Tensor) -> Tensor:
        """Whether the four corner coordinates add up to more than 0."""
        return boxes.sum(-1) > 0

    def in_cells(self, boxes: Tensor, strides: Tensor) -> Tensor:
        """Corners (H, 4) divided by the strides."""
        return boxes / strides[:, None]

    def windows(self, boxes: Tensor, pyramid: Pyramid, spec: LossSpec) -> Windows:
        """Windows of the anchors whose centres lie strictly inside each box."""
        return windows(boxes, pyramid, spec)

    def decode(self, scene: Scene, image: Tensor, anchor: Tensor) -> Tensor:
        """Predicted corners (4, u) in pixels."""
        centres_A2, strides_A = scene.centres, scene.strides
        per_image = columns_by_image(scene.boxes, image, anchor)
        distances = [expected_distances(columns.to(centres_A2.dtype).view(-1, 4, scene.spec.reg_max)).T for columns in per_image]
        distances_4u = torch.cat([centres_A2.new_empty(4, 0), *distances], dim=1)
        corners_4u = corners_from_distances(centres_A2.T.index_select(1, anchor), distances_4u, dim=0)
        return corners_4u * strides_A.index_select(0, anchor)

    def decode_all(self, preds: Mapping[str, Tensor], centres: Tensor, reg_max: int) -> Tensor:
        """Predicted corners (B, A, 4)."""
        return decode_boxes(preds["boxes"], centres, reg_max)

    def overlap(self, truth: Tensor, predicted: Tensor, spec: LossSpec) -> Tensor:
        """CIoU, ground truth first."""
        return ciou(truth, predicted, spec.ciou_eps)

    def box_term(self, distances: Tensor, held: HeldAnchors) -> Tensor:
        """Σ (1 − CIoU) · w, prediction first."""
        return box_term(distances, held.centres, held.truth, held.share, held.spec.ciou_eps)

    def clamped_target(self, held: HeldAnchors) -> Tensor:
        """Distances to the sides, clamped to [0, R − 1 − 0.01]."""
        return clamped_target(held.centres, held.truth, held.spec.reg_max, held.spec.clamp_margin)

    def distance_term(self, distances: Tensor, held: HeldAnchors) -> Tensor:
        """L1 of distances as shares of the image."""
        return distance_term(distances, held.centres, held.truth, held.strides, held.share, held.image_size)


UPRIGHT = Upright()
