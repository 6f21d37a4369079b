"""The loss of yolo9, the package of YOLOv9. Its terms come detached: they are taken, with gradients, where its modules compute them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import conventions
import torch
from stand_ins import load, stand_in
from torch import Tensor

GAINS = (7.5, 0.5, 1.5)
"""Gains that the package's loss has built in."""


def _corners(boxes: Tensor) -> Tensor:
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], -1)


stand_in("utils", TryExcept=lambda *_, **__: lambda function: function, threaded=lambda function: function)
stand_in("utils.tal")
stand_in("utils.general", xywh2xyxy=_corners, check_version=lambda *_, **__: True)
stand_in("utils.torch_utils", de_parallel=lambda model: model)
load("utils.metrics", "yolo9/utils/metrics.py")
load("utils.tal.anchor_generator", "yolo9/utils/tal/anchor_generator.py")
_assigner = load("utils.tal.assigner", "yolo9/utils/tal/assigner.py")
_loss = load("utils.loss_tal", "yolo9/utils/loss_tal.py")


class Criterion:
    """The package's loss under the suite's conventions."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec
        self.loss = _loss.ComputeLoss(_model(spec), use_dfl=spec.reg_max > 1)
        options = {"topk": spec.topk, "num_classes": spec.num_classes, "alpha": spec.alpha, "beta": spec.beta}
        self.loss.assigner = _assigner.TaskAlignedAssigner(**options)
        self.loss.BCEcls.register_forward_hook(self._keep_classification)
        self.loss.bbox_loss.register_forward_hook(self._keep_boxes)

    def _keep_classification(self, _module: Any, _inputs: Any, output: Tensor) -> None:
        self.classification = output

    def _keep_boxes(self, _module: Any, inputs: Any, output: Any) -> None:
        self.boxes, self.normaliser = output[:2], inputs[5]

    def __call__(self, preds: Any, batch: Any) -> conventions.Answer:
        """Returns the loss and its items.

        Raises:
            RuntimeError: the terms of its modules are not those that it returns.
        """
        nothing = preds["boxes"].sum() * 0.0
        self.boxes, self.normaliser = (nothing, nothing), 1.0
        _, returned = self.loss(conventions.level_maps(preds), conventions.rows(batch, batch["bboxes"]))
        box, distribution = self.boxes
        terms = (box, self.classification.sum() / self.normaliser, distribution)
        own = torch.stack([gain * term.detach().float().reshape(()) for gain, term in zip(GAINS, terms, strict=True)])
        if not torch.allclose(own, returned.float(), rtol=1e-2, equal_nan=True):
            raise RuntimeError(f"its modules compute the terms {own.tolist()}; it returns {returned.tolist()}")
        return conventions.answer(self.spec, preds, [gain * term for gain, term in zip(self.spec.gains, terms, strict=True)])


def _model(spec: Any) -> Any:
    """Returns what the package's loss reads of a model."""
    head = SimpleNamespace(
        nl=len(spec.strides),
        stride=torch.tensor([float(stride) for stride in spec.strides]),
        nc=spec.num_classes,
        no=spec.num_classes + 4 * spec.reg_max,
        reg_max=spec.reg_max,
    )
    parameter = torch.zeros(1)
    settings = {"cls_pw": 1.0, "fl_gamma": 0.0, "label_smoothing": 0.0}
    return SimpleNamespace(parameters=lambda: iter([parameter]), hyp=settings, model=[head])


def make(spec: Any) -> Criterion:
    """Returns the criterion of a definition."""
    return Criterion(spec)


def _declines(spec: Any, inputs: Any, _: Any) -> str | None:
    reason: str | None = conventions.lacks(spec) or conventions.too_few_for_boxes(spec, inputs)
    return reason


make.declines = _declines  # type: ignore[attr-defined]
