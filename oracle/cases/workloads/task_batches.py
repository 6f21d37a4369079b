"""Batches of the packs of :mod:`oracle.cases.workloads.task_packs`: the boxes, with what a task adds to them and to the predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from oracle.cases.case import Case
from oracle.cases.workloads.batches import open_images, real_batches
from oracle.cases.workloads.labelled_images import LabelledImages
from oracle.cases.workloads.task_packs import keypoint_images, mask_images, oriented_images
from twinloss import LossSpec
from twinloss.task_specs import SPECS

OPENERS: dict[str, Callable[[str], LabelledImages]] = {
    "detect": open_images,
    "segment": mask_images,
    "oriented": oriented_images,
    "pose": keypoint_images,
}
"""What opens a pack of each task by its name."""

COORDINATES = 3  # A keypoint of the packs: x, y, visibility.


def task_batches(
    task: str,
    source: LabelledImages,
    *,
    numbers: Mapping[str, Any] | None = None,
    semantic: bool = False,
    **arguments: Any,
) -> Iterator[Case]:
    """Yields batches of a task.

    Args:
        task: the task.
        source: a pack of the task.
        numbers: fields of the definition that differ from the default.
        semantic: of segmentation, whether the head sends semantic logits too.
        arguments: of :func:`~oracle.cases.workloads.batches.real_batches`.

    Raises:
        ValueError: as :func:`~oracle.cases.workloads.batches.real_batches`.
    """
    for case in real_batches(source, spec=definition_of(task, source, **numbers or {}), **arguments):
        yield dataclasses.replace(case, options={"semantic": 1.0} if semantic else {})


def definition_of(task: str, source: LabelledImages, **numbers: Any) -> LossSpec:
    """Returns the task's definition for the classes and keypoints of a pack, with some numbers changed."""
    fields: dict[str, Any] = {"num_classes": source.num_classes}
    if "keypoints" in source.extras:
        fields["keypoint_shape"] = source.keypoint_shape or (len(source.extras["keypoints"][0]) // COORDINATES, COORDINATES)
    return SPECS[task](**fields | numbers)
