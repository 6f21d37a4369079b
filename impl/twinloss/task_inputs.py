"""The further predictions and targets of each task, admitted as :mod:`twinloss.inputs` admits detection's.

A task's function takes what the call was given, checks the rest of it (section 10 of the task's specification) and returns it by key:
predictions where they lie, targets as copies on the logits' device.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from twinloss.given_inputs import Given
from twinloss.keypoint_inputs import admit_keypoints

FURTHER_INPUTS: dict[str, Callable[[Given], dict[str, Tensor]]] = {"detect": lambda _: {}, "pose": admit_keypoints}
"""By ``spec.task``."""

FURTHER_IN_OLD_LAYOUT: dict[str, tuple[str, ...]] = {
    "detect": (),
    "segment": ("mask_coefficient", "proto"),
    "oriented": ("angle",),
    "pose": ("kpts",),
}
"""What followed the per-level maps in the layout until 8.3.x, by ``spec.task``."""
