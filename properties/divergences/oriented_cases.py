"""Small batches of oriented boxes, and changes of their angles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from oracle.cases.case import Box, Case, Inputs, Prediction
from oracle.cases.logits import inline_text
from properties.divergences.input_edits import Edit
from twinloss import OrientedSpec

Turned = tuple[float, float, float, float, float]
"""Centre x, y, sides w, h in pixels, and angle."""


def oriented_case(*boxes: Turned, size: tuple[int, int] = (32, 32), images: tuple[int, ...] = (), **numbers: Any) -> Case:
    """Returns a case with zero logits; by default one image, class and level of stride 8. ``images``: the image of each box."""
    usual: dict[str, Any] = {"num_classes": 1, "reg_max": 4, "strides": (8,)}
    places = images or (0,) * len(boxes)
    rows = tuple(Box(image, 0, *box[:4]) for image, box in zip(places, boxes, strict=True))
    extras = {"angle": tuple(box[4] for box in boxes)} if boxes else {}
    spec = OrientedSpec(**usual | numbers)
    return Case(spec, size, max(places, default=0) + 1, rows, Prediction("zeros"), workload="register", extras=extras)


def predicting(case: Case, predicted: Mapping[int, Turned], score: float = 0.0) -> Case:
    """Returns a case of one image, one level and R = 1 whose anchors predict boxes, by anchor; others predict a cell to each side."""
    (_, columns), stride = case.grids[0], case.spec.strides[0]
    distances = np.ones((1, 4, case.num_anchors), dtype=np.float32)
    angles = np.zeros((1, 1, case.num_anchors), dtype=np.float32)
    for anchor, (x, y, w, h, angle) in predicted.items():
        dx, dy = x / stride - anchor % columns - 0.5, y / stride - anchor // columns - 0.5
        across, down = dx * math.cos(angle) + dy * math.sin(angle), dy * math.cos(angle) - dx * math.sin(angle)
        half = w / stride / 2, h / stride / 2
        distances[0, :, anchor] = half[0] - across, half[1] - down, half[0] + across, half[1] + down
        angles[0, 0, anchor] = angle
    scores = np.full((1, case.spec.num_classes, case.num_anchors), score, dtype=np.float32)
    prediction = Prediction("inline", inline=inline_text(distances, scores, angle=angles))
    return Case(case.spec, case.image_size, 1, case.boxes, prediction, workload="register", extras=case.extras)


def columns(count: int) -> Edit:
    """Keeps the first columns of the targets' boxes."""
    return lambda inputs: Inputs(inputs.preds, {**inputs.batch, "bboxes": inputs.batch["bboxes"][:, :count].contiguous()})


def angle_channels(count: int) -> Edit:
    """Repeats the channel of the angles; 0 leaves them out."""

    def edit(inputs: Inputs) -> Inputs:
        rest = {name: value for name, value in inputs.preds.items() if name != "angle"}
        angle = inputs.preds["angle"].detach().repeat(1, count, 1).requires_grad_()
        return Inputs(rest | ({"angle": angle} if count else {}), inputs.batch)

    return edit
