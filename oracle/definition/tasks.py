"""The definition of each task, by its name."""

from __future__ import annotations

from oracle.definition.criterion import ExactCriterion
from oracle.definition.segmentation import ExactSegmentation

DEFINITIONS: dict[str, type[ExactCriterion]] = {"detect": ExactCriterion, "segment": ExactSegmentation}
