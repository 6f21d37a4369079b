"""Small batches of pose, from which the register's cases are built: by default one keypoint at the centre of a box, and one level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from oracle.cases.case import Box, Case, Prediction
from oracle.cases.logits import inline_text
from oracle.cases.tasks.pose import pose_shapes
from properties.divergences.small_cases import box
from twinloss import PoseSpec

Point = tuple[float, float, float]


def pose_case(
    *boxes: Box,
    points: tuple[tuple[Point, ...], ...] = (),
    size: tuple[int, int] = (32, 32),
    images: int = 1,
    kind: Any = "near",
    **numbers: Any,
) -> Case:
    """Returns a case with the given keypoints of each box, x, y and visibility; ``numbers`` are fields of the definition."""
    usual: dict[str, Any] = {"num_classes": 1, "reg_max": 1, "strides": (8,), "keypoint_shape": (1, 3)}
    spec = PoseSpec(**usual | numbers)
    column = tuple(tuple(chain(*each)) for each in points) or tuple((b.cx, b.cy, 2.0) * spec.keypoint_shape[0] for b in boxes)
    return Case(spec, size, images, boxes, Prediction(kind, 1, 0.25), workload="register", extras={"keypoints": column} if boxes else {})


def with_predictions(case: Case, distances: float, kpts: Mapping[int, tuple[float, ...]] | None = None, sigma: float = 0.0) -> Case:
    """Returns a case of one image with R = 1 in which every anchor predicts the same, except for the raw keypoints of some.

    Args:
        case: the batch.
        distances: distance in cells of each predicted side.
        kpts: raw numbers of an anchor, by anchor; all others are 0.
        sigma: raw deviation.
    """
    shapes = pose_shapes(case)
    extra = {name: np.full(shape, sigma if name == "kpts_sigma" else 0.0, np.float32) for name, shape in shapes.items()}
    for anchor, raw in (kpts or {}).items():
        extra["kpts"][0, :, anchor] = raw
    boxes, scores = (np.full(shape, value, np.float32) for shape, value in zip(case.logit_shapes, (distances, 0.0), strict=True))
    return replace(case, prediction=Prediction("inline", inline=inline_text(boxes, scores, **extra)))


SECOND: dict[str, Any] = {"generation": 2}
LIKELY: dict[str, Any] = {"generation": 2, "flow": True}

ONE = box(4, 4, 28, 28)
FIRST_GENERATION, SECOND_GENERATION, LIKELIHOOD = pose_case(ONE), pose_case(ONE, **SECOND), pose_case(ONE, **LIKELY)
TWO = pose_case(ONE, box(8, 8, 24, 24, image=1), images=2)
HIDDEN = {
    generation: pose_case(ONE, points=(((16.0, 16.0, 2.0), (8.0, 8.0, 0.0)),), keypoint_shape=(2, 3), generation=generation)
    for generation in (1, 2)
}
