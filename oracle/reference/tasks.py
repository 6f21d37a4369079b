"""The reference's criterion of each task, by its name, and the batches that it declines."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from oracle.cases.case import Inputs, Setting
from oracle.contract.contender import Criterion
from oracle.reference.criterion import ReferenceCriterion, declines
from oracle.reference.oriented import ReferenceOriented
from oracle.reference.pose import ReferencePose
from oracle.reference.segmentation import ReferenceSegmentation, declines_segmentation
from twinloss import LossSpec


class TaskReference(NamedTuple):
    """Makes the criterion of a definition, and returns the reason why it cannot compute a batch in a setting, or ``None``."""

    make: Callable[..., Criterion]
    declines: Callable[[LossSpec, Inputs, Setting], str | None]


CRITERIA: dict[str, TaskReference] = {
    "detect": TaskReference(ReferenceCriterion, declines),
    "segment": TaskReference(ReferenceSegmentation, declines_segmentation),
    "oriented": TaskReference(ReferenceOriented, declines),
    "pose": TaskReference(ReferencePose, declines),
}
