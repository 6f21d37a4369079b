"""The further predictions and targets of each task, admitted as :mod:`twinloss.inputs.admission` admits detection's.

A task's function takes what the call was given, checks the rest of it (section 10 of the task's specification) and returns it by key:
predictions where they lie, targets as copies on the logits' device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from twinloss.inputs.given import Given
from twinloss.inputs.keypoints import admit_keypoints
from twinloss.inputs.masks import admit_masks


def oriented(given: Given) -> dict[str, Tensor]:
    """The predicted angles (B, 1, A).

    Raises:
        ValueError: they are missing or have another shape, dtype or device; or the boxes of an empty batch have other columns; or, with
            ``validate=True``, an angle of the ground truth is more than a turn.
    """
    boxes, angle = given.batch["bboxes"], given.targets["bboxes"][:, 4]
    if boxes.shape[1:] not in ((), (5,)):
        raise ValueError(f"batch['bboxes'] has shape {tuple(boxes.shape)}; expected (N, 5): centre x, centre y, width, height, angle")
    if given.validate and (turned := (angle.abs() > 2 * math.pi).nonzero()).numel():
        row = int(turned[0])
        raise ValueError(
            f"batch['bboxes'] row {row} has the angle {angle[row].item()}, more than a turn; angles are in radians: is it in degrees?"
        )
    return {"angle": given.logits("angle", 1)}


FURTHER_INPUTS: dict[str, Callable[[Given], dict[str, Tensor]]] = {
    "segment": admit_masks,
    "oriented": oriented,
    "pose": admit_keypoints,
}
"""By ``spec.task``; detection has none."""

FURTHER_IN_OLD_LAYOUT: dict[str, tuple[str, ...]] = {
    "detect": (),
    "segment": ("mask_coefficient", "proto"),
    "oriented": ("angle",),
    "pose": ("kpts",),
}
"""What followed the per-level maps in the layout until 8.3.x, by ``spec.task``."""

FURTHER_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "detect": ((), ()),
    "segment": (("mask_coefficient", "proto", "semantic"), ("masks", "sem_masks")),
    "oriented": (("angle",), ()),
    "pose": (("kpts", "kpts_sigma"), ("keypoints",)),
}
"""Keys of the further predictions and targets that are read where they are given, by ``spec.task``; ``semantic`` comes beside ``proto``."""
