"""The YOLO9 loss of libreyolo."""

from __future__ import annotations

from typing import Any

import conventions
import torch
from stand_ins import load, stand_in
from torch import Tensor

for _name in ("libreyolo", "libreyolo.training", "libreyolo.utils", "libreyolo.models", "libreyolo.models.yolo9"):
    stand_in(_name)
stand_in("libreyolo.data", default_oks_sigmas=lambda *_, **__: None)
stand_in("libreyolo.training.distributed", all_reduce_avg_scalar_tensor=lambda total: total.detach().float().clamp_min(1.0))
load("libreyolo.utils.box_ops", "libreyolo/utils/box_ops.py")
_loss = load("libreyolo.models.yolo9.loss", "libreyolo/models/yolo9/loss.py")


class Criterion:
    """The package's loss under the suite's conventions."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec

    def __call__(self, preds: Any, batch: Any) -> conventions.Answer:
        """Returns the loss and its items."""
        spec = self.spec
        box, classification, distribution = spec.gains
        height, width = conventions.image_size(preds, spec)
        device = preds["boxes"].device
        numbers = (distribution, classification, spec.topk, spec.beta, spec.alpha)
        criterion = _loss.YOLO9Loss(spec.num_classes, spec.reg_max, list(spec.strides), [width, height], device, box, *numbers)
        found = criterion(conventions.level_maps(preds), self._targets(preds, batch))
        return conventions.answer(spec, preds, [found[name] for name in ("box_loss", "cls_loss", "dfl_loss")])

    @staticmethod
    def _targets(preds: Any, batch: Any) -> Tensor:
        """Returns rows (B, M, 5) of class, -1 for padding, and corners in shares of the image."""
        targets = conventions.padded(preds, batch, (1.0, 1.0, 1.0, 1.0))
        labels = torch.where(targets.mask > 0, targets.labels.to(targets.corners.dtype), -1.0)
        return torch.cat([labels[..., None], targets.corners], -1)


def make(spec: Any) -> Criterion:
    """Returns the criterion of a definition."""
    return Criterion(spec)


def _declines(spec: Any, inputs: Any, _: Any) -> str | None:
    sides = conventions.image_size(inputs.preds, spec)
    divides = None if all(side % spec.strides[-1] == 0 for side in sides) else "its images are whole multiples of the coarsest stride"
    return conventions.lacks(spec, distances=False) or conventions.too_few(spec, inputs) or divides


make.declines = _declines  # type: ignore[attr-defined]
