"""The definition of each task, by its name."""

from __future__ import annotations

from oracle.definition.criterion import ExactCriterion
from oracle.definition.oriented import ExactOriented
from oracle.definition.pose import ExactPose
from oracle.definition.segmentation import ExactSegmentation

DEFINITIONS: dict[str, type[ExactCriterion]] = {
    "detect": ExactCriterion,
    "segment": ExactSegmentation,
    "oriented": ExactOriented,
    "pose": ExactPose,
}
