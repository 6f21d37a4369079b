"""Cases of the oriented loss: a column ``angle`` of ground truth, in radians, and predictions ``angle`` (B, 1, A).

An anchor within a box predicts that box, as in detection: distances are those to the box's sides in the *predicted* frame, so that the
decoded centre is the truth's whatever the angle's error. Angles by kind of recipe:

========== ===========================================================================================================
random     noise of one radian
untrained  older heads (R > 1): π/4, the middle of their range; raw angles (R = 1): 0; noise of ``spread`` / 10
near       the box's with an error of 0.2 ``spread``; one anchor in four writes the same rectangle another way, turned by π/2 or π
exact      the box's
saturated  R > 1: an end of the older heads' range, (-π/4, 3π/4); R = 1: ±30 to ±80 times ``spread``
early,     the box's with an error of :data:`ANGLE_ERRORS` times ``spread``
middle,
late
zeros      0
inline     the case carries them
========== ===========================================================================================================
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.cases.case import Case, inline_logits
from oracle.cases.logits import Floats, Scene, logits
from oracle.cases.noise import Noise
from oracle.cases.tasks.base import CaseTask

ANGLE_ERRORS = {"near": 0.2, "exact": 0.0, "early": 0.3, "middle": 0.1, "late": 0.03}
"""Deviation in radians of the predicted angle of an anchor within a box, by kind."""

_STREAM = 50
_TURNED = 0.25  # Share of the anchors that write the rectangle another way.


class OrientedTask(CaseTask):
    """Cases of the oriented loss."""

    def predictions(self, case: Case) -> dict[str, Floats]:
        """Returns box logits, class logits and angles (B, 1, A)."""
        kind, shape = case.prediction.kind, (case.batch_size, 1, case.num_anchors)
        if kind == "inline":
            return inline_logits(case, {**dict(zip(("boxes", "scores"), case.logit_shapes, strict=True)), "angle": shape})
        if kind not in ANGLE_ERRORS:
            boxes, scores = logits(case)
            return {"boxes": boxes, "scores": scores, "angle": _free_angles(case, shape)}
        scene, angle = _scene(case, smallest_on_top=kind in ("early", "middle", "late"))
        boxes, scores = logits(case, scene)
        return {"boxes": boxes, "scores": scores, "angle": angle}

    def targets(self, case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
        """Returns boxes (N, 5): centre and size as shares of the image, and the angle."""
        boxes = super().targets(case, dtype)["bboxes"]
        angle = torch.tensor(case.extras.get("angle", (0.0,) * len(case.boxes)), dtype=torch.float64)
        return {"bboxes": torch.cat([boxes, angle.float().to(dtype)[:, None]], dim=1)}


def _free_angles(case: Case, shape: tuple[int, int, int]) -> Floats:
    """Returns the angles of a recipe that knows no boxes."""
    noise, spread, older = Noise(case.prediction.seed, _STREAM), np.float32(case.prediction.spread), case.spec.reg_max > 1
    match case.prediction.kind:
        case "random":
            return noise.bell(*shape)
        case "untrained":
            return np.float32(math.pi / 4 if older else 0) + spread / 10 * noise.bell(*shape)
        case "saturated":
            draw = noise.uniform(*shape) * 2 - 1
            ends = np.where(draw < 0, np.float32(-math.pi / 4), np.float32(3 * math.pi / 4))
            return ends if older else (draw * 50 + np.copysign(np.float32(30), draw)) * spread
        case _:
            return np.zeros(shape, np.float32)


class _Rows(NamedTuple):
    """The case's boxes that are kept [3.1]: row in the case, image, label (n,), and the boxes (n, 5) in pixels and radians."""

    row: NDArray[np.int64]
    image: NDArray[np.int64]
    label: NDArray[np.int64]
    boxes: NDArray[np.float64]


def _rows(case: Case) -> _Rows:
    """Returns the boxes that a criterion keeps, from the float32 values that it gets."""
    boxes = OrientedTask().targets(case, torch.float64)["bboxes"].numpy()
    height, width = case.image_size
    boxes = boxes * np.array([width, height, width, height, 1.0])
    image, label = (np.array([getattr(box, name) for box in case.boxes], dtype=np.int64) for name in ("image", "label"))
    sound = np.isfinite(boxes).all(1) & (boxes[:, 2:4] >= 2).all(1)
    (index,) = np.nonzero(sound & (image >= 0) & (image < case.batch_size) & (label >= 0) & (label < case.spec.num_classes))
    return _Rows(index, image[index], label[index], boxes[index])


def _scene(case: Case, *, smallest_on_top: bool) -> tuple[Scene, Floats]:
    """Chooses a box for each anchor that lies in any; returns that, and the angles (B, 1, A) that the anchors predict."""
    rows, seed = _rows(case), case.prediction.seed
    areas = rows.boxes[:, 2] * rows.boxes[:, 3]
    order = np.argsort(-areas, kind="stable") if smallest_on_top else Noise(seed, 3).order(len(areas))
    centres, strides = _anchors(case)
    image, anchor, chosen = _painted(case, rows, order, centres * strides[:, None])
    angle = Noise(seed, _STREAM).bell(case.batch_size, 1, case.num_anchors) * np.float32(0.5)
    box = rows.boxes[chosen] / np.concatenate([np.tile(strides[anchor, None], 4), np.ones((len(anchor), 1))], axis=1)
    turns = _quarter_turns(case, len(anchor))
    error = np.float32(ANGLE_ERRORS[case.prediction.kind] * case.prediction.spread) * Noise(seed, _STREAM + 1).bell(len(anchor))
    # The anchors predict float32 angles; the distances have to be those in the frame of that angle.
    predicted = (box[:, 4] + turns * (math.pi / 2) + error).astype(np.float32)
    angle[image, 0, anchor] = predicted
    sides = np.where(turns[:, None] % 2 == 1, box[:, [3, 2]], box[:, 2:4])
    offset = _in_frame(box[:, :2] - centres[anchor], predicted.astype(np.float64))
    distances = np.concatenate([sides / 2 - offset, sides / 2 + offset], axis=1).astype(np.float32)
    return Scene(image, anchor, rows.row[chosen], rows.label[chosen], distances, np.tile(sides, 2).astype(np.float32)), angle


def _quarter_turns(case: Case, count: int) -> NDArray[np.int64]:
    """Returns by how many right angles each anchor (n,) turns its rectangle, with the sides exchanged for an odd number."""
    if case.prediction.kind != "near":
        return np.zeros(count, dtype=np.int64)
    draw = Noise(case.prediction.seed, _STREAM + 2).uniform(count)
    return np.where(draw < _TURNED, 1 + (draw * (3 / _TURNED)).astype(np.int64), 0)


def _anchors(case: Case) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the anchors' centres (A, 2) in cells and strides (A,) in pixels."""
    centres = [np.stack(np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5), -1).reshape(-1, 2) for rows, columns in case.grids]
    counts = [rows * columns for rows, columns in case.grids]
    return np.concatenate(centres), np.repeat(np.array(case.spec.strides, dtype=np.float64), counts)


def _painted(
    case: Case, rows: _Rows, order: NDArray[np.int64], pixels: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns image, anchor and box (each (P,)) of the anchors within a box, short sides lengthened; a later box overwrites an earlier."""
    seen = np.full((case.batch_size, case.num_anchors), -1, dtype=np.int64)
    half = np.maximum(rows.boxes[:, 2:4], case.spec.shortest_side) / 2
    for j in order.tolist():
        offset = np.abs(_in_frame(rows.boxes[j, :2] - pixels, rows.boxes[j, 4]))
        seen[rows.image[j], (offset <= half[j]).all(1)] = j
    image, anchor = np.nonzero(seen >= 0)
    return image, anchor, seen[image, anchor]


def _in_frame(offset: NDArray[np.float64], angle: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Returns offsets (n, 2) along the sides of boxes with these angles."""
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y = offset[:, 0], offset[:, 1]
    return np.stack([x * cosine + y * sine, y * cosine - x * sine], axis=1)
