"""The assigner's overlaps by the name by which a definition asks for them (``spec.overlap``)."""

from __future__ import annotations

from collections.abc import Callable

from twinloss.assignment.keypoint_similarity import KeypointOverlap
from twinloss.assignment.mask_overlap import MaskAwareOverlap
from twinloss.assignment.overlaps import BoxOverlap, Overlap, Ties
from twinloss.assignment.scene import Scene

OVERLAPS: dict[str, Callable[[Scene, Ties], Overlap]] = {
    "ciou": BoxOverlap,
    "ciou and masks": MaskAwareOverlap,
    "probiou": BoxOverlap,
    "keypoints": KeypointOverlap,
}
