"""The assigner's overlaps by the name by which a definition asks for them (``spec.overlap``)."""

from __future__ import annotations

from collections.abc import Callable

from twinloss.keypoint_similarity import KeypointOverlap
from twinloss.masks.overlap import MaskAwareOverlap
from twinloss.overlaps import BoxOverlap, Overlap, Ties
from twinloss.scene import Scene

OVERLAPS: dict[str, Callable[[Scene, Ties], Overlap]] = {
    "ciou": BoxOverlap,
    "ciou and masks": MaskAwareOverlap,
    "probiou": BoxOverlap,
    "keypoints": KeypointOverlap,
}
