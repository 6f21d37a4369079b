"""Computes the logits of a case from its recipe: predictions of a head at stages of its training, and special ones for tests.

========== ===========================================================================================================
random     noise of ``spread`` logits everywhere; for R = 1 distances of 2 cells give or take ``spread`` times 2
untrained  a freshly initialised head: every distribution flat, every class at the prior, noise of ``spread`` / 10
near       every anchor within a box predicts one such box, with an error of ``spread`` cells a side, and its class likely
exact      the same, without error: as close as float32 logits come, to the bit for R = 1 and for halves and integers
saturated  logits of ±30 to ±80 times ``spread``, a quarter of the scores around ±17.4, where float16 loses its probability
early,     a network in training: errors proportional to the box, confidence that falls off from its centre; ``spread``
middle,    scales the errors. :data:`TRAINING_STAGES` has the numbers
late
zeros      all zero: every decision that can tie, does
inline     the case carries its logits
========== ===========================================================================================================
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oracle.cases.case import Case, inline_logits
from oracle.cases.noise import Noise

Floats = NDArray[np.float32]
Logits = tuple[Floats, Floats]

_OFF = -100.0  # A logit with a probability below the rounding of 1, in float64 too, and within the range of float16.
_HALF_LIMIT = 17.4  # |logit| at which float16's sigmoid reaches 0 (spec section 8a).
_TAIL = -12.0  # Lowest logit of a bin, as of a trained head's unlikely bins, so that every bin has a gradient.
_AWAY = 2.0  # Distance in cells that an anchor of no box predicts.


@dataclass(frozen=True)
class TrainingStage:
    """Statistics of a network's predictions at one stage of its training.

    Attributes:
        error: deviation of each predicted side as a share of the box's side.
        floor: least deviation in cells, for small boxes.
        peak: mean class logit at the centre of a box.
        background: mean logit of every other class and place.
        wobble: deviation of the class logits.
        width: deviation in bins of the predicted distribution of a side.
    """

    error: float
    floor: float
    peak: float
    background: float
    wobble: float
    width: float


TRAINING_STAGES = {
    "early": TrainingStage(error=0.25, floor=0.5, peak=-2.5, background=-8.0, wobble=1.0, width=2.5),
    "middle": TrainingStage(error=0.09, floor=0.2, peak=1.0, background=-10.0, wobble=1.2, width=1.2),
    "late": TrainingStage(error=0.03, floor=0.1, peak=3.5, background=-12.0, wobble=1.2, width=0.7),
}


def logits(case: Case, scene: Scene | None = None) -> Logits:
    """Returns box logits (B, 4R, A) and class logits (B, C, A) in float32, with the same bits on every call.

    Args:
        case: the batch.
        scene: the box of each anchor, of a task whose boxes are not upright.

    Raises:
        ValueError: the case's kind is unknown, or the logits of an inline case have another shape than the case implies.
    """
    recipe = _RECIPES.get(case.prediction.kind)
    if recipe is None:
        raise ValueError(f"prediction kind {case.prediction.kind!r} is unknown; choose one of {', '.join(_RECIPES)}")
    return recipe(case, scene)


def inline_text(boxes: Floats, scores: Floats, **further: Floats) -> dict[str, str]:
    """Returns :attr:`Prediction.inline` for these logits, and a task's further predictions by name."""
    parts = {"boxes": boxes, "scores": scores, **further}
    return {name: base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode() for name, array in parts.items()}


def _inline(case: Case, _scene: Scene | None) -> Logits:
    found = inline_logits(case, dict(zip(("boxes", "scores"), case.logit_shapes, strict=True)))
    return found["boxes"], found["scores"]


def _noise(case: Case) -> Logits:
    boxes, scores = case.logit_shapes
    return Noise(case.prediction.seed, 0).bell(*boxes), Noise(case.prediction.seed, 1).bell(*scores)


def _random(case: Case, _scene: Scene | None) -> Logits:
    boxes, scores = _noise(case)
    scale = np.float32(case.prediction.spread)
    if case.spec.reg_max == 1:
        return _AWAY + 2 * scale * boxes, scale * scores
    return scale * boxes, scale * scores


def _untrained(case: Case, _scene: Scene | None) -> Logits:
    boxes, scores = _noise(case)
    scale = np.float32(case.prediction.spread / 10)
    expected = max(len(case.boxes) / max(case.batch_size, 1), 1.0)
    prior = -math.log(max(case.num_anchors * case.spec.num_classes / expected, 2.0))
    start = _AWAY if case.spec.reg_max == 1 else 0.0
    return np.float32(start) + scale * boxes, np.float32(prior) + scale * scores


def _saturated(case: Case, _scene: Scene | None) -> Logits:
    shapes = case.logit_shapes
    seed, spread = case.prediction.seed, np.float32(case.prediction.spread)

    def extremes(shape: tuple[int, int, int], stream: int) -> Floats:
        draw = Noise(seed, stream).uniform(*shape) * 2 - 1
        return np.where(draw < 0, draw * 50 - 30, draw * 50 + 30) * spread

    boxes, scores = (extremes(shape, stream) for stream, shape in enumerate(shapes))
    fine = Noise(seed, 2).uniform(*shapes[1])
    around_limit = np.copysign(np.float32(_HALF_LIMIT) + (fine * 8 - 1) * np.float32(0.5), scores)
    return boxes, np.where(fine < 0.25, around_limit, scores).astype(np.float32)


def _zeros(case: Case, _scene: Scene | None) -> Logits:
    boxes, scores = case.logit_shapes
    return np.zeros(boxes, np.float32), np.zeros(scores, np.float32)


@dataclass(frozen=True)
class Scene:
    """The box of each anchor that lies in one (P,).

    Attributes:
        image, anchor: image, and anchor within it.
        box: index into the case's boxes.
        label: class of the box.
        distances: (P, 4) to the sides of the box, in cells.
        sides: (P, 4) lengths of its sides, in cells.
    """

    image: NDArray[np.int64]
    anchor: NDArray[np.int64]
    box: NDArray[np.int64]
    label: NDArray[np.int64]
    distances: Floats
    sides: Floats


def scene_of(case: Case, *, smallest_on_top: bool) -> Scene:
    """Chooses a box for each anchor that lies in any: the smallest, as a trained head learns, or a random one."""
    index, boxes = _corners(case)
    areas = (boxes[:, 4] - boxes[:, 2]) * (boxes[:, 5] - boxes[:, 3])
    order = np.argsort(-areas, kind="stable") if smallest_on_top else Noise(case.prediction.seed, 3).order(len(boxes))
    seen = np.full((case.batch_size, case.num_anchors), -1, dtype=np.int64)
    centres = np.empty((case.num_anchors, 2), dtype=np.float32)
    strides = np.empty(case.num_anchors, dtype=np.float32)
    shortest = case.spec.shortest_side
    start = 0
    for (rows, columns), stride in zip(case.grids, case.spec.strides, strict=True):
        level = slice(start, start + rows * columns)
        start = level.stop
        strides[level] = stride
        centres[level, 0] = np.tile(np.arange(columns, dtype=np.float32) + 0.5, rows)
        centres[level, 1] = np.repeat(np.arange(rows, dtype=np.float32) + 0.5, columns)
        _paint(seen[:, level].reshape(case.batch_size, rows, columns), boxes, order, stride, shortest)
    image, anchor = np.nonzero(seen >= 0)
    chosen = seen[image, anchor]
    box = boxes[chosen]
    # A loss gets ground truth in float32; an exact prediction has to be computed from the same values.
    corners = (box[:, 2:] / strides[anchor, None]).astype(np.float32)
    distances = np.concatenate([centres[anchor] - corners[:, :2], corners[:, 2:] - centres[anchor]], axis=1)
    sides = np.maximum(corners[:, 2:] - corners[:, :2], 0)
    return Scene(image, anchor, index[chosen], box[:, 1].astype(np.int64), distances, np.tile(sides, 2))


def _corners(case: Case) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns the indices of the valid boxes, and their rows of image, class and pixel corners."""
    rows = np.array([(b.image, b.label, b.cx, b.cy, b.w, b.h) for b in case.boxes], dtype=np.float64).reshape(-1, 6)
    sound = np.isfinite(rows).all(1) & (rows[:, 0] >= 0) & (rows[:, 0] < case.batch_size)
    sound &= (rows[:, 1] >= 0) & (rows[:, 1] < case.spec.num_classes) & (rows[:, 4:] >= 0).all(1)
    rows = rows[sound]
    height, width = case.image_size
    size = np.array([width, height, width, height], dtype=np.float32)
    centre_size = (rows[:, 2:] / size).astype(np.float32) * size
    half = centre_size[:, 2:] / 2
    corners = np.concatenate([rows[:, :2].astype(np.float32), centre_size[:, :2] - half, centre_size[:, :2] + half], axis=1)
    return np.flatnonzero(sound), corners


def _paint(seen: NDArray[np.int64], boxes: Floats, order: NDArray[np.int64], stride: int, shortest: int) -> None:
    """Marks the cells (B, rows, columns) of one level whose centres lie within a box; a later box overwrites an earlier one."""
    middle = (boxes[:, 2:4] + boxes[:, 4:6]) / 2
    half = np.maximum(boxes[:, 4:6] - boxes[:, 2:4], shortest) / 2
    first = np.ceil((middle - half) / stride - 0.5).clip(0).astype(np.int64)
    last = (np.floor((middle + half) / stride - 0.5) + 1).clip(0).astype(np.int64)
    windows = np.concatenate([boxes[:, :1].astype(np.int64), first, last], axis=1)[order].tolist()
    for box, (image, x1, y1, x2, y2) in zip(order.tolist(), windows, strict=True):
        seen[image, y1:y2, x1:x2] = box


def _distributions(distances: Floats, reg_max: int, width: float) -> Floats:
    """Returns logits (B, 4R, A) of bell-shaped distributions around the distances (B, 4, A); for R = 1 the distances."""
    if reg_max == 1:
        return distances
    batch, _, anchors = distances.shape
    bins = np.arange(reg_max, dtype=np.float32)[:, None]
    offsets = bins - distances.clip(0, reg_max - 1)[:, :, None, :]
    shaped: Floats = (offsets * offsets * np.float32(-0.5 / width**2)).clip(_TAIL)
    return shaped.reshape(batch, 4 * reg_max, anchors)


def two_bin_logits(distances: Floats, reg_max: int) -> Floats:
    """Returns logits (B, 4R, A) whose expectation is the distance, with two bins of positive probability; for R = 1 the distances."""
    if reg_max == 1:
        return distances
    batch, _, anchors = distances.shape
    clamped = distances.clip(0, reg_max - 1).astype(np.float64)
    lower = np.minimum(np.floor(clamped), reg_max - 2)
    upper_share = clamped - lower
    with np.errstate(divide="ignore"):
        upper_logit, lower_logit = np.log(upper_share).clip(_OFF), np.log(1 - upper_share).clip(_OFF)
    out = np.full((batch, 4, reg_max, anchors), _OFF, dtype=np.float32)
    index = lower.astype(np.int64)[:, :, None, :]
    np.put_along_axis(out, index, lower_logit[:, :, None, :].astype(np.float32), axis=2)
    np.put_along_axis(out, index + 1, upper_logit[:, :, None, :].astype(np.float32), axis=2)
    return out.reshape(batch, 4 * reg_max, anchors)


def _spread_out(case: Case, scene: Scene, values: Floats, elsewhere: float) -> Floats:
    """Returns distances (B, 4, A): ``values`` for anchors in a box, ``elsewhere`` for the others."""
    out = np.full((case.batch_size, 4, case.num_anchors), elsewhere, dtype=np.float32)
    out[scene.image, :, scene.anchor] = values
    return out


def _near(case: Case, scene: Scene | None) -> Logits:
    scene, reg_max = scene or scene_of(case, smallest_on_top=False), case.spec.reg_max
    distances = _spread_out(case, scene, scene.distances, _AWAY)
    distances += np.float32(case.prediction.spread) * Noise(case.prediction.seed, 0).bell(*distances.shape)
    scores = Noise(case.prediction.seed, 1).bell(*case.logit_shapes[1]) - np.float32(4)
    scores[scene.image, scene.label, scene.anchor] += 6
    return _distributions(distances, reg_max, width=0.8), scores


def _exact(case: Case, scene: Scene | None) -> Logits:
    scene, reg_max = scene or scene_of(case, smallest_on_top=False), case.spec.reg_max
    distances = _spread_out(case, scene, scene.distances, _AWAY)
    scores = np.full(case.logit_shapes[1], -4, dtype=np.float32)
    scores[scene.image, scene.label, scene.anchor] = 2
    return two_bin_logits(distances, reg_max), scores


def _in_training(case: Case, scene: Scene | None) -> Logits:
    stage, scene = TRAINING_STAGES[case.prediction.kind], scene or scene_of(case, smallest_on_top=True)
    scale, seed = np.float32(case.prediction.spread), case.prediction.seed
    error = scene.sides * np.float32(stage.error) + np.float32(stage.floor)
    values = scene.distances + scale * error * Noise(seed, 0).bell(*scene.distances.shape)
    distances = _spread_out(case, scene, values, _AWAY)
    scores = Noise(seed, 1).bell(*case.logit_shapes[1]) * np.float32(stage.wobble) + np.float32(stage.background)
    scores[scene.image, scene.label, scene.anchor] += np.float32(stage.peak - stage.background) * _centredness(scene.distances)
    logits = _distributions(distances, case.spec.reg_max, stage.width)
    if case.spec.reg_max > 1:
        logits += np.float32(0.1) * Noise(seed, 4).bell(*logits.shape)
    return logits, scores


def _centredness(distances: Floats) -> Floats:
    """Returns the square root of the centre-ness of FCOS (arXiv 1904.01355, equation 3): 1 at a box's centre, 0 at its border."""
    left_top, right_bottom = distances[:, :2].clip(0), distances[:, 2:].clip(0)
    ratios = np.minimum(left_top, right_bottom) / np.maximum(np.maximum(left_top, right_bottom), np.float32(1e-6))
    centredness: Floats = np.sqrt(np.sqrt(ratios[:, 0] * ratios[:, 1]))
    return centredness


_RECIPES: dict[str, Callable[[Case, Scene | None], Logits]] = {
    "random": _random,
    "untrained": _untrained,
    "near": _near,
    "exact": _exact,
    "saturated": _saturated,
    "early": _in_training,
    "middle": _in_training,
    "late": _in_training,
    "zeros": _zeros,
    "inline": _inline,
}
