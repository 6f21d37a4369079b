"""Pose: target keypoints, raw keypoints with visibility logits, and raw deviations in the second generation.

The extra column ``keypoints`` has n·2 or n·3 numbers for each box: x and y in pixels, and the visibility if there are three. Without it
each box has its keypoints on an ellipse, all visible. The option ``evaluation`` is 1 for a model in evaluation mode, which predicts no
deviations.

========== ===========================================================================================================
random     noise of ``spread``: keypoints about the anchor's centre, deviations about a half
untrained  the same, of ``spread`` / 10
near       an error of ``spread`` cells in each coordinate, visibility likely, deviations about a tenth
exact      no error: as close as float32 comes; deviations of one half, a quarter or a twentieth, depending on the seed
saturated  numbers of ±30 to ±80 times ``spread``; a quarter of the deviations about the floor of float16, others at both ends
early,     errors proportional to the box, visibility that becomes sure, deviations that shrink
middle,
late
zeros      all zero
========== ===========================================================================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oracle.cases.case import Case, inline_logits
from oracle.cases.logits import TRAINING_STAGES, Floats, Scene, scene_of
from oracle.cases.noise import Noise
from oracle.cases.tasks.base import CaseTask
from oracle.cases.tasks.flow import Flow
from twinloss import PoseSpec

_KEYPOINTS, _DEVIATIONS, _FINE = 71, 72, 73  # streams of noise
_HALF_FLOOR = -9.7  # Raw deviation at which float16's floor is reached.
_SMALLEST = -110.0  # Below −87.3, where float32's is.
_EXACT = (0.0, -1.0, -3.0)


@dataclass(frozen=True)
class _Formed:
    """Predictions near the truth: mean logit of a visible keypoint, deviation of the logits, mean of the raw deviations, and theirs."""

    visible: float
    wobble: float
    sigma: float
    sigma_wobble: float


_FORMED = {
    "near": _Formed(2.0, 1.0, -2.0, 1.0),
    "exact": _Formed(4.0, 0.0, 0.0, 0.0),
    "early": _Formed(0.3, 0.7, 0.0, 0.5),
    "middle": _Formed(1.5, 1.0, -1.0, 0.7),
    "late": _Formed(3.5, 1.0, -2.5, 0.7),
}


class PoseTask(CaseTask):
    """Predictions and targets of pose."""

    def predictions(self, case: Case) -> dict[str, Floats]:
        """Returns ``boxes``, ``scores``, ``kpts`` (B, n·E, A), and in the second generation ``kpts_sigma`` (B, 2n, A)."""
        found, shapes, kind = super().predictions(case), pose_shapes(case), case.prediction.kind
        if kind == "inline":
            return found | inline_logits(case, shapes)
        if kind == "zeros":
            return found | {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        if kind == "saturated":
            return found | {name: _extremes(case, name, shape) for name, shape in shapes.items()}
        scale = np.float32(case.prediction.spread * (0.1 if kind == "untrained" else 1.0))
        extra = {name: scale * Noise(case.prediction.seed, _STREAMS[name]).bell(*shape) for name, shape in shapes.items()}
        if kind in _FORMED:
            _form(case, _FORMED[kind], extra)
        return found | extra

    def targets(self, case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
        """Returns ``bboxes`` and ``keypoints`` (N, n, 2 or 3), as shares of the image."""
        keypoints = shares(case)
        return super().targets(case, dtype) | {"keypoints": torch.from_numpy(keypoints).to(dtype)}

    def flow(self, case: Case) -> Flow | None:
        """Returns the flow, where the definition has a likelihood term."""
        return Flow() if pose_spec(case).flow else None


_STREAMS = {"kpts": _KEYPOINTS, "kpts_sigma": _DEVIATIONS}


def pose_spec(case: Case) -> PoseSpec:
    """Returns the definition of a pose case."""
    assert isinstance(case.spec, PoseSpec)
    return case.spec


def pose_shapes(case: Case) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the predictions that the task adds, by name."""
    spec = pose_spec(case)
    points, numbers = spec.keypoint_shape
    shapes: dict[str, tuple[int, ...]] = {"kpts": (case.batch_size, points * numbers, case.num_anchors)}
    if spec.generation == 2 and not case.options.get("evaluation"):
        shapes["kpts_sigma"] = (case.batch_size, 2 * points, case.num_anchors)
    return shapes


def shares(case: Case) -> Floats:
    """Returns the target keypoints (N, n, 2 or 3), coordinates as shares of the image, rounded to float32 in every setting."""
    points = pose_spec(case).keypoint_shape[0]
    column = case.extras.get("keypoints") or tuple(_ellipse(case, index) for index in range(len(case.boxes)))
    numbers = len(column[0]) // points if column else 3
    rows = np.array(column, dtype=np.float64).reshape(len(column), points, numbers)
    rows[..., :2] /= np.array(case.image_size[::-1], dtype=np.float64)
    return rows.astype(np.float32)


def _ellipse(case: Case, index: int) -> tuple[float, ...]:
    """Returns keypoints on an ellipse of half the size of a box, all visible."""
    box, points = case.boxes[index], pose_spec(case).keypoint_shape[0]
    turns = [2 * math.pi * k / points for k in range(points)]
    return tuple(value for t in turns for value in (box.cx + box.w / 4 * math.cos(t), box.cy + box.h / 4 * math.sin(t), 2.0))


def _extremes(case: Case, name: str, shape: tuple[int, ...]) -> Floats:
    seed, spread = case.prediction.seed, np.float32(case.prediction.spread)
    draw = Noise(seed, _STREAMS[name]).uniform(*shape) * 2 - 1
    found: Floats = np.where(draw < 0, draw * 50 - 30, draw * 50 + 30).astype(np.float32) * spread
    if name == "kpts_sigma":
        fine = Noise(seed, _FINE).uniform(*shape)
        found = np.where(fine < 0.25, np.float32(_HALF_FLOOR) + fine - np.float32(0.125), found)
        found = np.where(fine > 0.75, np.float32(_SMALLEST) * fine, found).astype(np.float32)
    return found


def _form(case: Case, formed: _Formed, extra: dict[str, Floats]) -> None:
    """Replaces noise at the anchors that lie in a box by predictions of its keypoints, and all deviations, in place."""
    spec, kind, scene = pose_spec(case), case.prediction.kind, scene_of(case, smallest_on_top=case.prediction.kind in TRAINING_STAGES)
    points, numbers = spec.keypoint_shape
    noise = extra["kpts"].reshape(case.batch_size, points, numbers, case.num_anchors)
    own = noise[scene.image, :, :, scene.anchor]
    centres, strides = anchors_of(case)
    targets = shares(case)[scene.box] if len(case.boxes) else np.zeros((0, points, 3), np.float32)
    wanted = targets[..., :2] * np.array(case.image_size[::-1], np.float32) / strides[scene.anchor, None, None]
    found = wanted + _errors(case, scene, own[..., :2])
    away = found - centres[scene.anchor, None]
    own[..., :2] = (away + np.float32(0.5)) / 2 if spec.generation == 1 else away
    if numbers == 3:
        sign = np.where(targets[..., 2] != 0, 1, -1) if targets.shape[-1] == 3 else np.ones(targets.shape[:2])
        wobble = own[..., 2] * np.float32(formed.wobble / max(case.prediction.spread, 1e-6))
        own[..., 2] = sign.astype(np.float32) * np.float32(formed.visible) + wobble
    noise[scene.image, :, :, scene.anchor] = own
    if "kpts_sigma" in extra:
        base = _EXACT[case.prediction.seed % len(_EXACT)] if kind == "exact" else formed.sigma
        bell = Noise(case.prediction.seed, _DEVIATIONS).bell(*extra["kpts_sigma"].shape)
        extra["kpts_sigma"] = np.float32(base) + np.float32(formed.sigma_wobble) * bell


def _errors(case: Case, scene: Scene, noise: Floats) -> Floats:
    """Returns errors (P, n, 2) in cells: none, those of the recipe, or a share of the box's sides."""
    kind = case.prediction.kind
    if kind in TRAINING_STAGES:
        stage = TRAINING_STAGES[kind]
        scaled: Floats = noise * (scene.sides[:, None, :2] * np.float32(stage.error) + np.float32(stage.floor))
        return scaled
    return np.zeros_like(noise) if kind == "exact" else noise


def anchors_of(case: Case) -> tuple[Floats, NDArray[np.float32]]:
    """Returns the centres (A, 2) in cells and strides (A,) in pixels of a case's anchors."""
    levels = [np.stack(np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5), -1).reshape(-1, 2) for rows, columns in case.grids]
    strides = [np.full(len(level), stride) for level, stride in zip(levels, case.spec.strides, strict=True)]
    return np.concatenate(levels).astype(np.float32), np.concatenate(strides).astype(np.float32)
