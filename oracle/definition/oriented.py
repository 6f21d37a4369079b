"""The oriented loss in float64, where it differs from the detection loss; numbers in brackets are sections of its specification."""

from __future__ import annotations

import torch
from torch import Tensor

from oracle.contract.contender import Batch, Preds
from oracle.definition.criterion import ExactCriterion, Grid, GroundTruth, Held
from oracle.definition.input_checks import check_angles, check_oriented_boxes
from oracle.definition.oriented_formulas import angle_term, border_distance, decoded_boxes, lengthened_sides, probiou, side_distances
from twinloss import OrientedSpec

SMALLEST_SIDE = 2.0  # [3.1] Sides below this many pixels remove a box.
INCLUDED = 1e-300  # [3.1], [5.1] The limit is included: makes a difference of 0 positive, and changes no other.


class ExactOriented(ExactCriterion):
    """The oriented loss by its definition, in float64; boxes are (x, y, w, h, θ), predictions have ``angle`` (B, 1, A)."""

    spec: OrientedSpec
    box_numbers = ("x", "y", "w", "h", "angle")
    box_columns = 5

    def grid(self, preds: Preds) -> Grid:
        """[2] The anchors."""
        check_angles(preds)
        return super().grid(preds)

    def truth(self, preds: Preds, batch: Batch) -> GroundTruth:
        """[3] Rows of the batch with boxes (N, 5) in pixels."""
        check_oriented_boxes(batch)
        return super().truth(preds, batch)

    def boxes_in_pixels(self, shares: Tensor, grid: Grid) -> Tensor:
        """[3.2] x and w times the width, y and h times the height (N, 5); θ is left alone."""
        return shares * shares.new_tensor([grid.width, grid.height, grid.width, grid.height, 1])

    def validity(self, boxes: Tensor) -> Tensor:
        """[3.1], [3.3] The smallest (n,) of w - 2, h - 2 and the sum of the five numbers: the first two are 0 or more, the last is > 0."""
        wide = boxes[:, 2:4].double() - SMALLEST_SIDE + INCLUDED
        return torch.cat([wide, boxes.double().sum(1, keepdim=True)], dim=1).amin(1)

    def border(self, boxes: Tensor, grid: Grid) -> Tensor:
        """[5.1] Distance (M, A) in pixels from each anchor's centre to the nearest side of each box, > 0 for a candidate."""
        return border_distance(self.windows(boxes).double(), grid.centres * grid.strides[:, None]) + INCLUDED

    def windows(self, boxes: Tensor) -> Tensor:
        """[5.1] The boxes (M, 5) with their short sides lengthened, in the dtype of the boxes."""
        return lengthened_sides(boxes, self.spec.shortest_side, self.spec.lengthened_below)

    def decode(self, preds: Preds) -> Tensor:
        """[4] Predicted boxes (B, A, 5) in grid units."""
        centres, sides = self.grid(preds).centres, self.distances(preds["boxes"].double().transpose(1, 2))
        return decoded_boxes(sides, preds["angle"][:, 0].double(), centres)

    def predicted_in_pixels(self, predicted: Tensor, strides: Tensor) -> Tensor:
        """[5] Predicted boxes (..., A, 5) in pixels: all but the angle times the stride of the anchor's level."""
        return predicted * in_pixels(strides)

    def overlap(self, boxes: Tensor, predicted: Tensor) -> Tensor:
        """[5.2] ProbIoU (n,) of ground truth and predictions (n, 5) in pixels, without floor, at least 0."""
        return probiou(boxes, predicted, 0.0, self.spec.probiou_eps).clamp(min=0)

    def term_overlap(self, predicted: Tensor, boxes: Tensor) -> Tensor:
        """[7] ProbIoU (H,) of predictions and ground truth (H, 5) in grid units, with the floor of the box term."""
        return probiou(predicted, boxes, self.spec.term_floor, self.spec.probiou_eps)

    def box_terms(self, preds: Preds, grid: Grid, held: Held) -> dict[str, Tensor]:
        """[7] Box, distribution (R = 1: distance) and angle terms."""
        spec, sides = self.spec, self.distances(held.logits)
        angle = preds["angle"].double()[held.image, 0, held.anchor]
        predicted, boxes = decoded_boxes(sides, angle, held.centres), held.corners / in_pixels(held.strides)
        # [14] Before 8.4.0 distributions learnt the distances to the box of the same sides that is not turned.
        turn = 1.0 if spec.turned_targets else 0.0
        target = side_distances(boxes * boxes.new_tensor([1, 1, 1, 1, turn]), held.centres)
        each = {
            "box": 1 - self.term_overlap(predicted, boxes),
            "dfl": self.distance_or_distribution(sides, target, grid, held),
            "angle": angle_term(angle, boxes, spec.angle_scale),
        }
        return {name: (term * held.share).sum() / held.normaliser for name, term in each.items()}


def in_pixels(strides: Tensor) -> Tensor:
    """Returns the factors (n, 5) that turn grid units into pixels: the strides (n,), and 1 for the angle."""
    return torch.stack([strides] * 4 + [torch.ones_like(strides)], dim=-1)
