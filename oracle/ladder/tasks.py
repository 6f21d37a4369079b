"""How a definition reaches a release: the criterion's class, the options of that, and the attributes of a model that it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from oracle.ladder.inside.stand_ins import GaussianFlow
from twinloss import LossSpec, PoseSpec, SegmentationSpec

OPTIONS = ("num_classes", "reg_max", "strides", "topk", "topk2", "class_weights")
FLOW = np.array([[1.5, 0.5], [-0.25, 0.75]])
"""Matrix of the flow of pose questions."""
PROTOTYPES = 6
"""Number of prototypes of segmentation questions, which the oldest releases read of the head."""


def _nothing(_: LossSpec) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class LadderTask:
    """How the definitions of one task reach a release.

    Attributes:
        gains: names of the gains among a model's arguments, in the definition's order.
        assigner: class of the assigner whose options the interface lists.
        criterion: class of the criterion of a definition.
        args, head, model: attributes of a model's arguments, of its head and of itself that the task adds.
    """

    gains: tuple[str, ...]
    assigner: str
    criterion: Callable[[Any], str]
    args: Callable[[Any], dict[str, Any]] = _nothing
    head: Callable[[Any], dict[str, Any]] = _nothing
    model: Callable[[Any], dict[str, Any]] = _nothing


def _segmentation(spec: SegmentationSpec) -> str:
    return "SegmentLoss26" if spec.mask_aware else "v8SegmentationLoss"


def _pose(spec: PoseSpec) -> str:
    return "v8PoseLoss" if spec.generation == 1 else "PoseLoss26"


_GAINS = ("box", "cls", "dfl")
TASKS = {
    "detect": LadderTask(_GAINS, "TaskAlignedAssigner", lambda _: "v8DetectionLoss"),
    "segment": LadderTask(
        _GAINS,
        "TaskAlignedAssigner",
        _segmentation,
        args=lambda spec: {"overlap_mask": spec.overlap_mask},
        head=lambda _: {"nm": PROTOTYPES},
    ),
    "oriented": LadderTask((*_GAINS, "angle"), "RotatedTaskAlignedAssigner", lambda _: "v8OBBLoss"),
    "pose": LadderTask(
        (*_GAINS, "pose", "kobj", "rle"),
        "TaskAlignedAssigner",
        _pose,
        head=lambda spec: {"kpt_shape": list(spec.keypoint_shape)},
        model=lambda spec: {} if spec.sigmas is None else {"kpt_oks_sigmas": list(spec.sigmas)},
    ),
}


def spec_fields(spec: LossSpec) -> dict[str, Any]:
    """Returns what a question says of a definition."""
    task = TASKS[spec.task]
    return {
        **{name: getattr(spec, name) for name in OPTIONS},
        "criterion": task.criterion(spec),
        "args": {**dict(zip(task.gains, spec.gains, strict=True)), **task.args(spec)},
        "head": task.head(spec),
        "model": task.model(spec),
    }


def flow_of(spec: LossSpec) -> GaussianFlow | None:
    """Returns a new flow where the definition has one, as a release gets it."""
    return GaussianFlow(torch.from_numpy(FLOW.copy())) if isinstance(spec, PoseSpec) and spec.flow else None
