"""The trace of an assignment: every decision in one image, with the quantities that it depends on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

UNASSIGNED = -1


@dataclass(frozen=True)
class ImageTrace:
    """Every step of the assignment in one image, in float64: M valid boxes in order of arrival, A anchors.

    Attributes:
        image: index of the image in the batch.
        arrived: (n,) rows of the batch that belong to the image, valid or not, in order of arrival.
        corner_sum: (n,) sum of the four corner coordinates in pixels of each; the row is valid when it is > 0 [3].
        rows: (M,) rows of the batch that are valid, or all where anchors of weight 0 are assigned; index j below counts these.
        labels: (M,) their classes.
        corners: (M, 4) their corners in pixels.
        border: (M, A) smallest distance in pixels from the anchor's centre to a side of the (possibly lengthened) box, less the
            assigner's epsilon: positive strictly inside, negative outside [5.1].
        candidate: (M, A) bool, ``border > 0``.
        probability: (M, A) sigmoid of the anchor's score for the box's class [5].
        overlap: (M, A) CIoU clamped at 0 for candidate pairs, 0 elsewhere [5.2].
        metric: (M, A) alignment metric for candidate pairs, 0 elsewhere [5.3].
        picked: (M, A) bool, the anchors that each box picks before conflicts, under the criterion's rule for ties [5.4].
        before_cut: (A,) index j of the box that holds the anchor after conflicts, or ``UNASSIGNED`` [5.5].
        holder: (A,) the same after the second cut, when there is one [5.6]; includes anchors held with zero weight.
        weight: (A,) soft target t of the anchor, 0 where no box holds it [5.7].
    """

    image: int
    arrived: Tensor
    corner_sum: Tensor
    rows: Tensor
    labels: Tensor
    corners: Tensor
    border: Tensor
    candidate: Tensor
    probability: Tensor
    overlap: Tensor
    metric: Tensor
    picked: Tensor
    before_cut: Tensor
    holder: Tensor
    weight: Tensor
