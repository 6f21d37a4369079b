"""What a training of each task takes: a data set, the heads of its models, settings of the trainer, and the scores that it reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
HEAD = "Detect, [nc]"
"""The head of the models in this folder, which :func:`model_of` replaces."""

SCORES = {"metrics/mAP50(B)": "mAP50", "metrics/mAP50-95(B)": "mAP50-95"}


@dataclass(frozen=True)
class TrainedTask:
    """What a training of one task takes.

    Attributes:
        name: name of the task.
        folder: folder of its data set below that of real ground truth.
        origin: what the data set shows, for reports.
        heads: the head of a plain model and of an end-to-end one, as in a model's YAML.
        more: further lines of a model's YAML.
        settings: settings of the trainer that differ from the other tasks'.
        scored: letter and name of what the trainer scores beside boxes.
    """

    name: str
    folder: str
    origin: str
    heads: tuple[str, str]
    more: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    scored: tuple[str, str] | None = None

    @property
    def scores(self) -> dict[str, str]:
        """The scores of the trainer, with their names in reports."""
        if self.scored is None:
            return SCORES
        letter, what = self.scored
        return SCORES | {name.replace("(B)", f"({letter})"): f"{what} {score}" for name, score in SCORES.items()}


TRAINED = {
    task.name: task
    for task in (
        TrainedTask("detect", "bccd", "BCCD: photographs of blood cells with hand-drawn boxes", (HEAD, HEAD)),
        TrainedTask(
            "segment",
            "cells_seg",
            "nuclei of the Data Science Bowl 2018 with their outlines",
            ("Segment, [nc, 8, 16]", "Segment26, [nc, 8, 16]"),
            scored=("M", "mask"),
        ),
        TrainedTask(
            "oriented", "thermal_obb", "HIT-UAV: thermal images from the air with oriented boxes", ("OBB, [nc, 1]", "OBB26, [nc, 1]")
        ),
        TrainedTask(
            "pose",
            "mouse_pose",
            "mirror-mouse: mice seen from two sides with 7 keypoints",
            ("Pose, [nc, kpt_shape]", "Pose26, [nc, kpt_shape]"),
            more="kpt_shape: [7, 3]\n",
            settings={"fliplr": 0.0},  # The rig is never mirrored.
            scored=("P", "keypoint"),
        ),
    )
}


def model_of(task: TrainedTask, size: str, scratch: Path, *, end_to_end: bool) -> Path:
    """Returns the YAML of a model of a size, "small" or "tiny", with the head of a task; of another task than detection in ``scratch``."""
    plain = FOLDER / (f"{size}-end-to-end.yaml" if end_to_end else f"{size}.yaml")
    head = task.heads[end_to_end]
    if head == HEAD:
        return plain
    path = scratch / f"{plain.stem}-{task.name}.yaml"
    path.write_text(task.more + plain.read_text(encoding="utf-8").replace(HEAD, head), encoding="utf-8")
    return path
