"""Oriented boxes, (x, y, w, h, θ) in pixels and radians: the geometry of the oriented loss.

Shape suffixes as in :mod:`twinloss.geometry.base`; 2 is (x, y), 5 the numbers of a box.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from twinloss.anchors import Pyramid
from twinloss.gather_anchors import columns_by_image
from twinloss.geometry.base import Geometry, Windows
from twinloss.geometry.corners import expected_distances, windows_within
from twinloss.geometry.probiou import probiou
from twinloss.geometry.rectangles import (
    boxes_from_distances,
    counts,
    decode_oriented_boxes,
    distances_from_boxes,
    enclosing_corners,
    inside,
    lengthen,
    pixel_boxes,
    sides_suffice,
)
from twinloss.spec import LossSpec
from twinloss.task_specs import OrientedSpec
from twinloss.terms.boxes import difference_term

if TYPE_CHECKING:
    from twinloss.assignment.scene import Scene
    from twinloss.terms.held import HeldAnchors


class Oriented(Geometry):
    """Boxes turned by an angle."""

    name = "oriented"
    targets = ("centre x", "centre y", "width", "height", "angle")
    predictions = ("boxes", "angle")
    columns = 5
    exact_windows = False

    def in_pixels(self, bboxes: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Boxes (N, 5)."""
        return pixel_boxes(bboxes, image_size)

    def valid(self, boxes: Tensor) -> Tensor:
        """Whether both sides have two pixels, and the five numbers add up to more than 0."""
        return counts(boxes)

    def counted(self, boxes: Tensor) -> Tensor:
        """Whether both sides have two pixels: others are removed before anything else."""
        return sides_suffice(boxes)

    def in_cells(self, boxes: Tensor, strides: Tensor) -> Tensor:
        """Boxes (H, 5), all but the angle divided by the strides."""
        return torch.cat([boxes[:, :4] / strides[:, None], boxes[:, 4:]], dim=-1)

    def windows(self, boxes: Tensor, pyramid: Pyramid, spec: LossSpec) -> Windows:
        """Windows of the upright rectangles around the lengthened boxes, wider by what rounding may take."""
        corners_n4 = enclosing_corners(_lengthened(boxes, spec))
        size_n2 = corners_n4[:, 2:] - corners_n4[:, :2]
        slack_n2 = 1e-5 * (size_n2 + boxes[:, :2].abs())
        return windows_within(torch.cat([corners_n4[:, :2] - slack_n2, corners_n4[:, 2:] + slack_n2], dim=-1), pyramid, 0)

    def inside(self, boxes: Tensor, centres: Tensor, spec: LossSpec) -> Tensor:
        """Whether the centres lie in the lengthened boxes or on their borders."""
        return inside(_lengthened(boxes, spec), centres)

    def decode(self, scene: Scene, image: Tensor, anchor: Tensor) -> Tensor:
        """Predicted boxes (5, u) in pixels."""
        centres_A2, strides_A = scene.centres, scene.strides
        of_sides, of_angle = (columns_by_image(logits, image, anchor) for logits in (scene.boxes, scene.extras["angle"]))
        distances = [expected_distances(columns.to(centres_A2.dtype).view(-1, 4, scene.spec.reg_max)).T for columns in of_sides]
        distances_4u = torch.cat([centres_A2.new_empty(4, 0), *distances], dim=1)
        angle_1u = torch.cat([centres_A2.new_empty(1, 0), *(columns.T.to(centres_A2.dtype) for columns in of_angle)], dim=1)
        boxes_5u = boxes_from_distances(centres_A2.T.index_select(1, anchor), distances_4u, angle_1u, dim=0)
        return torch.cat([boxes_5u[:4] * strides_A.index_select(0, anchor), boxes_5u[4:]])

    def decode_all(self, preds: Mapping[str, Tensor], centres: Tensor, reg_max: int) -> Tensor:
        """Predicted boxes (B, A, 5)."""
        return decode_oriented_boxes(preds["boxes"], preds["angle"], centres, reg_max)

    def overlap(self, truth: Tensor, predicted: Tensor, spec: LossSpec) -> Tensor:
        """ProbIoU without a floor."""
        return probiou(truth, predicted, 0.0, _numbers(spec).probiou_eps)

    def box_term(self, distances: Tensor, held: HeldAnchors) -> Tensor:
        """Σ (1 − ProbIoU) · w, with the floor. Centres are relative to the anchor's, so that their differences round little."""
        spec = _numbers(held.spec)
        predicted_H5 = boxes_from_distances(torch.zeros_like(held.centres), distances, held.columns("angle"))
        truth_H5 = torch.cat([held.truth[:, :2] - held.centres, held.truth[:, 2:]], dim=-1)
        return ((1 - probiou(predicted_H5, truth_H5, spec.term_floor, spec.probiou_eps)) * held.share).sum()

    def clamped_target(self, held: HeldAnchors) -> Tensor:
        """Distances to the sides in the ground truth's frame, clamped to [0, R − 1 − 0.01]; of an older definition to those unturned."""
        return _target(held).clamp(0, held.spec.largest_target)

    def distance_term(self, distances: Tensor, held: HeldAnchors) -> Tensor:
        """L1 of distances to the same sides, as shares of the image's width (left, right) and height (top, bottom)."""
        return difference_term(distances, _target(held), held.strides, held.share, held.image_size)


def _target(held: HeldAnchors) -> Tensor:
    """Distances (H, 4) to the sides in the ground truth's frame; of an older definition to those of the box unturned."""
    truth_H5 = held.truth
    if not _numbers(held.spec).turned_targets:
        truth_H5 = torch.cat([truth_H5[:, :4], torch.zeros_like(truth_H5[:, 4:])], dim=-1)
    return distances_from_boxes(held.centres, truth_H5)


def _lengthened(boxes: Tensor, spec: LossSpec) -> Tensor:
    sides = lengthen(boxes[:, 2:4], spec.lengthened_below, spec.shortest_side)
    return torch.cat([boxes[:, :2], sides, boxes[:, 4:]], dim=-1)


def _numbers(spec: LossSpec) -> OrientedSpec:
    assert isinstance(spec, OrientedSpec)
    return spec


ORIENTED = Oriented()
