"""The detection loss of kyolo, on Keras 3 with the torch backend."""

from __future__ import annotations

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import conventions
from kyolo.losses import YOLODetectionLoss


class Criterion:
    """The package's loss under the suite's conventions."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec
        box, classification, distribution = spec.gains
        self.loss = YOLODetectionLoss(
            nc=spec.num_classes,
            reg_max=spec.reg_max,
            strides=spec.strides,
            box_gain=box,
            cls_gain=classification,
            dfl_gain=distribution,
            tal_topk=spec.topk,
            use_dfl=spec.reg_max > 1,
            data_format="channels_first",
        )
        self.loss.assigner.alpha, self.loss.assigner.beta = spec.alpha, spec.beta

    def __call__(self, preds: Any, batch: Any) -> conventions.Answer:
        """Returns the loss and its items."""
        targets = conventions.padded(preds, batch, conventions.pixels(preds, self.spec), least=1)
        found = self.loss(conventions.level_maps(preds), {"boxes": targets.corners, "labels": targets.labels, "mask": targets.mask})
        terms = [gain * found[name] for gain, name in zip(self.spec.gains, ("box", "cls", "dfl"), strict=True)]
        return conventions.answer(self.spec, preds, terms)


def make(spec: Any) -> Criterion:
    """Returns the criterion of a definition."""
    return Criterion(spec)


def _declines(spec: Any, inputs: Any, setting: Any) -> str | None:
    other = None if setting.dtype == "float32" else "Keras computes in float32"
    return conventions.lacks(spec) or conventions.too_few(spec, inputs) or other


make.declines = _declines  # type: ignore[attr-defined]
