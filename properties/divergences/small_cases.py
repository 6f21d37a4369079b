"""Small batches with given logits, from which the register's cases are built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oracle.cases.case import Box, Case, Prediction
from oracle.cases.logits import inline_text
from twinloss import LossSpec

Corners = tuple[float, float, float, float]


def box(x1: float, y1: float, x2: float, y2: float, *, image: int = 0, label: int = 0) -> Box:
    """Returns a box, given its pixel corners."""
    return Box(image, label, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)


def small_case(*boxes: Box, images: int = 1, size: tuple[int, int] = (32, 32), **numbers: Any) -> Case:
    """Returns a case with zero logits; by default one class and one level of stride 8. ``numbers`` are fields of the definition."""
    usual: dict[str, Any] = {"num_classes": 1, "reg_max": 4, "strides": (8,)}
    spec = LossSpec(**usual | numbers)
    return Case(spec, size, images, boxes, Prediction("zeros"), workload="register")


def with_logits(
    case: Case, score: float | Sequence[float] = 0.0, predicted: Mapping[int, Corners] | None = None, elsewhere: float = 1.0
) -> Case:
    """Returns a case of one image, one level and R = 1 with the given logits.

    Args:
        case: the batch.
        score: class logit of every anchor, or one for each anchor; the same for all classes.
        predicted: pixel corners that an anchor predicts, by anchor.
        elsewhere: distance in cells that all other anchors predict.
    """
    (rows, columns), stride = case.grids[0], case.spec.strides[0]
    distances = np.full((1, 4, rows * columns), elsewhere, dtype=np.float32)
    for anchor, (x1, y1, x2, y2) in (predicted or {}).items():
        x, y = anchor % columns + 0.5, anchor // columns + 0.5
        distances[0, :, anchor] = x - x1 / stride, y - y1 / stride, x2 / stride - x, y2 / stride - y
    scores = np.broadcast_to(np.asarray(score, dtype=np.float32), (1, case.spec.num_classes, rows * columns))
    prediction = Prediction("inline", inline=inline_text(distances, np.ascontiguousarray(scores)))
    return Case(case.spec, case.image_size, 1, case.boxes, prediction, workload="register")
