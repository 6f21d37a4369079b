"""The detection loss of lucid-yolo, an independent implementation for heads without distribution."""

from __future__ import annotations

from typing import Any

import conventions
import torch
from stand_ins import load, stand_in
from torch import Tensor

for _name in ("lucid_yolo", "lucid_yolo.data", "lucid_yolo.assign", "lucid_yolo.losses"):
    stand_in(_name)
load("lucid_yolo.data.rotated_geom", "lucid_yolo/data/rotated_geom.py")
_grid = load("lucid_yolo.assign.grid", "lucid_yolo/assign/grid.py")
load("lucid_yolo.assign.tal", "lucid_yolo/assign/tal.py")
_assigner = load("lucid_yolo.assign.stal", "lucid_yolo/assign/stal.py")
load("lucid_yolo.assign.one_to_one", "lucid_yolo/assign/one_to_one.py")
load("lucid_yolo.losses.ciou", "lucid_yolo/losses/ciou.py")
_loss = load("lucid_yolo.losses.detection_loss", "lucid_yolo/losses/detection_loss.py")


class Criterion:
    """The package's loss under the suite's conventions."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec
        first, second = spec.strides[0], spec.strides[min(1, len(spec.strides) - 1)]
        self.assigner = _assigner.SmallTargetAssigner(spec.topk, spec.alpha, spec.beta, s_min=float(first), s_ref=float(second))
        self.loss = _loss.DetectionBranchLoss(*spec.gains)

    def __call__(self, preds: Any, batch: Any) -> conventions.Answer:
        """Returns the loss and its items."""
        spec = self.spec
        points, strides = _grid.make_anchor_points([tuple(level.shape[-2:]) for level in preds["feats"]], list(spec.strides))
        boxes, logits = self._boxes(preds, points, strides), preds["scores"].transpose(1, 2)
        targets = conventions.padded(preds, batch, conventions.pixels(preds, spec))
        truth = (targets.corners, targets.labels, targets.mask > 0)
        assigned = self.assigner(logits.detach().sigmoid(), boxes.detach(), points, *truth)
        found = self.loss(logits, boxes, assigned, strides)
        terms = zip(spec.gains, (found.box, found.cls, found.l1), strict=True)
        return conventions.answer(spec, preds, [gain * term for gain, term in terms])

    @staticmethod
    def _boxes(preds: Any, points: Tensor, strides: Tensor) -> Tensor:
        """Returns the predicted corners (B, A, 4) in pixels."""
        distances = preds["boxes"].transpose(1, 2) * strides[:, None].to(preds["boxes"].dtype)
        return torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1)


def make(spec: Any) -> Criterion:
    """Returns the criterion of a definition."""
    return Criterion(spec)


make.declines = lambda spec, _inputs, _setting: conventions.lacks(spec, bins=False)  # type: ignore[attr-defined]
