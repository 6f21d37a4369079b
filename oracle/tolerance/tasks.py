"""The steps of margins and tolerances that depend on the task, by its name."""

from __future__ import annotations

from typing import NamedTuple

from oracle.tolerance.loss_and_gradients import TermSteps
from oracle.tolerance.margins import MarginSteps
from oracle.tolerance.mask_overlaps import SegmentMargins
from oracle.tolerance.oriented import OrientedMarginSteps, OrientedTermSteps
from oracle.tolerance.pose import PoseMargins
from oracle.tolerance.pose_terms import PoseTerms
from oracle.tolerance.segmentation import SegmentTerms


class TaskSteps(NamedTuple):
    """Steps of :func:`~oracle.tolerance.margins.margins_of` and of :func:`~oracle.tolerance.loss_and_gradients.outcome_tolerance`."""

    margins: MarginSteps
    terms: TermSteps


TASK_STEPS: dict[str, TaskSteps] = {
    "detect": TaskSteps(MarginSteps(), TermSteps()),
    "segment": TaskSteps(SegmentMargins(), SegmentTerms()),
    "oriented": TaskSteps(OrientedMarginSteps(), OrientedTermSteps()),
    "pose": TaskSteps(PoseMargins(), PoseTerms()),
}
